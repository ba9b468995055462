"""What the kernel driver and the boards keep for one program."""

from __future__ import annotations

import threading
from dataclasses import dataclass
from typing import TYPE_CHECKING

from drivers.emulated.memory import Backing, HostMap, round_to_pages
from drivers.emulated.model import Call
from drivers.emulated.native import Native, map_bell
from drivers.emulated.nv.abi import Abi
from drivers.emulated.nv.gpu import USERMODE_BYTES, Gpu
from drivers.emulated.protocol import Action
from drivers.emulated.schedule import Schedule, SeededSchedule
from drivers.system import MAP_SHARED, PROT_READ, PROT_WRITE, RealSystem

if TYPE_CHECKING:
    from drivers.emulated.nv.channel import Channel
    from drivers.emulated.nv.objects import Client
    from drivers.emulated.simt.engine import Engine as SimtEngine

FIRST_CLIENT = 0xC1D00000  # rs_server.h, RS_CLIENT_HANDLE_BASE: clients are numbered from there


@dataclass(eq=False)
class Pages:
    """Physical memory: a range of the backing file. It lives as long as somebody uses it."""

    offset: int
    size_bytes: int
    gpu: Gpu | None = None  # whose video memory it is
    user_address: int = 0  # of the program's own memory
    users: int = 1
    address: int = 0  # where this process sees it, if it had to look


class NvProcess:
    """One program as the kernel driver knows it."""

    def __init__(
        self, gpus: list[Gpu], log: list[str], bell: int, program: int, seed: int | None,
        abi: Abi, container: bool = False, eager: bool = False,
    ) -> None:
        self.gpus, self.log, self.abi, self.container = gpus, log, abi, container
        self.eager = eager
        self.system = RealSystem()
        self.native = Native(self.system, map_bell(bell))
        self.backing = Backing("nvidia")
        self.host = HostMap()
        self.lock = threading.RLock()
        self.atomics = threading.Lock()
        self.translator: SimtEngine | None = None
        self.lingering: list[Channel] = []  # channels that are gone, inside a grid still
        for gpu in gpus:
            gpu.log = log
            offset = self.backing.allocate(USERMODE_BYTES)
            gpu.attach(self.see(offset, USERMODE_BYTES), offset)
        self._begin()
        self.schedule: Schedule = (
            Schedule(self.native) if seed is None
            else SeededSchedule(seed, self.native, program, lambda on: None)
        )

    def _begin(self) -> None:
        self.clients: dict[int, Client] = {}
        self.next_client = FIRST_CLIENT
        self.channels: list[Channel] = []
        self.returned: list[Pages] = []  # to the program, with the answer of its next call
        self.shown: dict[tuple[int, int], int] = {}  # (address, offset): GPUs that see it there

    def see(self, offset: int, size_bytes: int) -> int:
        """Shows a range of the backing to this process, anywhere."""
        return self.system.mmap(
            round_to_pages(size_bytes), PROT_READ | PROT_WRITE, MAP_SHARED,
            self.backing.descriptor, offset,
        )

    def look_at(self, pages: Pages) -> int:
        """Where this process sees some pages."""
        if not pages.address:
            pages.address = self.see(pages.offset, pages.size_bytes)
        return pages.address

    def show(self, address: int, pages: Pages, offset: int, size_bytes: int) -> None:
        """Shows pages at a GPU's address. Raises OSError if something else is shown there."""
        key = (address, pages.offset + offset)
        if key not in self.shown:
            self.host.map(address, size_bytes, self.backing.descriptor, key[1])
        self.shown[key] = self.shown.get(key, 0) + 1

    def hide(self, address: int, pages: Pages, offset: int, size_bytes: int) -> None:
        """One GPU less sees pages at an address."""
        key = (address, pages.offset + offset)
        self.shown[key] -= 1
        if not self.shown[key]:
            del self.shown[key]
            self.host.unmap(address, size_bytes, self.idle())

    def release(self, pages: Pages) -> None:
        """One user less."""
        pages.users -= 1
        if pages.users:
            return
        if pages.address:
            self.system.munmap(pages.address, round_to_pages(pages.size_bytes))
        if pages.gpu is not None:
            pages.gpu.used_bytes -= pages.size_bytes
        if pages.user_address:
            self.returned.append(pages)
        else:
            self.backing.release(pages.offset, pages.size_bytes)

    def give_back(self, call: Call) -> None:
        """Tells the program which of its own pages no GPU sees any more."""
        returned, self.returned = self.returned, []
        for pages in returned:
            call.act(Action.RETURN, 0, pages.user_address, pages.size_bytes, pages.offset)

    def idle(self) -> bool:
        """Whether no engine is inside a packet."""
        self.lingering = [channel for channel in self.lingering if channel.thread.is_alive()]
        return not self.lingering and not any(channel.busy for channel in self.channels)

    def simt(self) -> SimtEngine:
        """The translator of machine code, made when it is first needed."""
        with self.atomics:
            if self.translator is None:
                from drivers.emulated.simt.engine import Engine as Translator

                self.translator = Translator(self.system, self.schedule.threads, self.eager)
            return self.translator

    def reset(self) -> None:
        """Everything that the program owned goes."""
        with self.schedule.call(), self.lock:
            for client in list(self.clients.values()):
                client.free()
            self.host.collect()
            self._begin()
            self.schedule.reset()
