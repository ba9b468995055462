"""What the kernel driver keeps once for a process: nodes, a client, and GPUs' address spaces.

Unified memory gives each GPU one address space for a process, so devices that are opened again
share it. The nodes stay open when a device is closed, and the next one uses them again.
"""

from __future__ import annotations

import contextlib
import threading
from typing import Any, Final, NamedTuple

from autogen import nv_555
from drivers.blocks import page_aligned
from drivers.errors import SystemCallFailed
from drivers.nv.board import NvGpu
from drivers.nv.rm import Rm
from drivers.nv.uvm import Uvm
from drivers.once import OncePerSystem
from drivers.system import (
    MAP_ANONYMOUS,
    MAP_NORESERVE,
    MAP_PRIVATE,
    PROT_NONE,
    System,
)

_CARDS: Final = 32  # NV_MAX_DEVICES of nv-limits.h
_ADDRESSES: Final = range(1 << 37, 1 << 40)
"""GPFIFO entries and QMDs have 40-bit addresses; below lies what a program's image may take."""
_TRIES: Final = 4096


class Card(NamedTuple):
    """A GPU that the kernel driver has: its number there and that of its node."""

    gpu_id: int
    minor: int


class AddressSpace:
    """Addresses that are the same for the host and for GPUs, handed out in a circle."""

    def __init__(self, system: System, device: str) -> None:
        self._system, self._device = system, device
        self._next = _ADDRESSES.start
        self._lock = threading.Lock()

    def reserve(self, size_bytes: int, alignment: int) -> int:
        """A stretch that nothing else of the process lies in; munmap gives it back."""
        size = page_aligned(size_bytes)
        with self._lock:
            for _ in range(_TRIES):
                address = -(-self._next // alignment) * alignment
                if address + size > _ADDRESSES.stop:
                    address = _ADDRESSES.start
                self._next = address + size
                if self._claim(address, size):
                    return address
        raise SystemCallFailed.wrap(
            OSError(12, "no addresses below 2^40 are free"), "mmap", self._device
        )

    def _claim(self, address: int, size: int) -> bool:
        flags = MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE
        try:
            found = self._system.mmap(size, PROT_NONE, flags, -1, 0, address)
        except OSError as error:
            raise SystemCallFailed.wrap(error, "mmap", self._device) from error
        if found != address:  # without MAP_FIXED an address is a wish
            with contextlib.suppress(OSError):
                self._system.munmap(found, size)
        return found == address


class NvProcess:
    """This process as one System's kernel driver knows it."""

    def __init__(self, system: System) -> None:
        self.system = system
        self.lock = threading.Lock()
        self._gpus: dict[int, NvGpu] = {}
        self._peers: dict[frozenset[int], bool] = {}
        self.rm = Rm(system, "NV")
        try:
            self.cards = self._find_cards()
            self.uvm = Uvm(self.rm)
        except BaseException:
            self.rm.close()
            raise
        self.addresses = AddressSpace(system, "NV")

    def _find_cards(self) -> list[Card]:
        cards: Any = (nv_555.nv_ioctl_card_info_t * _CARDS)()
        self.rm.escape("NV_ESC_CARD_INFO", nv_555.NV_ESC_CARD_INFO, cards)
        return [
            Card(int(card.gpu_id), int(card.minor_number)) for card in cards if card.valid
        ]

    def gpu(self, index: int, device: str) -> NvGpu:
        """A GPU with its objects and its address space, made at first use."""
        with self.lock:
            if index not in self._gpus:
                self._gpus[index] = NvGpu(
                    self.rm, self.uvm, self.cards[index].gpu_id, self.cards[index].minor, device
                )
            return self._gpus[index]

    def are_peers(self, first: NvGpu, second: NvGpu) -> bool:
        """Whether GPUs reach each other's memory; asked of unified memory once."""
        pair = frozenset((first.minor, second.minor))
        with self.lock:
            if pair not in self._peers:
                self._peers[pair] = True
                try:
                    self.uvm.enable_peers(first.uuid, second.uuid)
                except SystemCallFailed:
                    self._peers[pair] = False
            return self._peers[pair]

    def close(self) -> None:
        """Closes the nodes, when nobody can use them through this System any more."""
        for gpu in self._gpus.values():
            gpu.close()
        self._gpus.clear()
        self.uvm.close()
        self.rm.close()

    def __del__(self) -> None:
        if hasattr(self, "uvm"):
            with contextlib.suppress(OSError):
                self.close()


_processes: Final = OncePerSystem(NvProcess, NvProcess)
process_of: Final = _processes.of
"""The process's one connection through a System (the real one, if none is given)."""
