"""One GPU of the machine: how RM names it, its doorbell, and the channels that listen to it."""

from __future__ import annotations

import ctypes
import hashlib
import threading
import time
from typing import TYPE_CHECKING

from drivers.emulated.native import NOT_EQUAL
from drivers.emulated.nv.boards import Board
from drivers.emulated.schedule import FULL_MASK, Comparison

if TYPE_CHECKING:
    from drivers.emulated.nv.channel import Channel

USERMODE_BYTES = 0x10000  # clc361.h, NVC361__SIZE
TIME_0, DOORBELL = 0x80, 0x90  # clc361.h: PTIMER in ns (64 bits), NOTIFY_CHANNEL_PENDING
TAKEN = 0x94  # reserved in hardware; here the board counts the rings that it has taken
NO_TOKEN = 0xFFFFFFFF
FIRST_BUS = 0x41
BAR1_BASE, BAR_STRIDE = 0x20_0000_0000, 0x40_0000_0000
RUNLIST_SHIFT = 16  # of a work submit token: the channel's number lies below


class Gpu:
    """`registers` is where the usermode region lies in this process, `offset` in the backing.

    A doorbell is a token that the program stores into one word, which the board takes out again.
    A store that came in between is lost, but then its channel's GP_PUT had been moved before: so
    every ring makes all channels of the GPU look at theirs.
    """

    def __init__(self, index: int, board: Board) -> None:
        self.index, self.board, self.minor = index, board, index
        self.bus, self.gpu_id = FIRST_BUS + index, (FIRST_BUS + index) << 8
        seed = f"tinyhw emulated {board.name} {index}".encode()
        self.uuid = hashlib.sha1(seed, usedforsecurity=False).digest()[:16]
        self.lock = threading.Lock()
        self.log: list[str] = []
        self.attach(0, 0)

    @property
    def uuid_text(self) -> str:
        """As /proc/driver/nvidia and nvidia-smi write it."""
        text = self.uuid.hex()
        parts = (text[:8], text[8:12], text[12:16], text[16:20], text[20:])
        return "GPU-" + "-".join(parts)

    def attach(self, registers: int, offset: int) -> None:
        """Begins anew, with the usermode region at an address and an offset."""
        self.registers, self.usermode_offset = registers, offset
        self.channels: dict[int, Channel] = {}  # by token
        self.used_bytes = 0
        if registers:
            self.doorbell = ctypes.c_uint32.from_address(registers + DOORBELL)
            self.taken = ctypes.c_uint32.from_address(registers + TAKEN)
            self.doorbell.value = NO_TOKEN
            self.tell_time()

    def listen(self) -> Comparison:
        """Holds after a ring, taken or not, that is later than this call."""
        reference = NO_TOKEN | self.taken.value << 32
        return Comparison(self.registers + DOORBELL, 8, FULL_MASK, NOT_EQUAL, reference)

    def leads(self, channel: Channel) -> bool:
        """Whether it is the first channel, which always listens to the doorbell."""
        return tuple(self.channels.values())[:1] == (channel,)

    def tell_time(self) -> None:
        """Brings TIME_0 and TIME_1 up to date: they only move when the board looks."""
        ctypes.c_uint64.from_address(self.registers + TIME_0).value = timer()

    def collect(self) -> bool:
        """Takes a ring: channels see their new GP_PUT. False if there was none."""
        with self.lock:
            token = self.doorbell.value
            if token == NO_TOKEN:
                return False
            self.doorbell.value = NO_TOKEN
            self.tell_time()
        # Taking the lock again orders that store before the loads of GP_PUT.
        with self.lock:
            if token not in self.channels:
                self.log.append(f"GPU {self.index}: the doorbell says {token:#x}, no channel's")
            else:
                for channel in tuple(self.channels.values()):
                    channel.look()
            self.taken.value += 1
        return True

    def free_token(self, runlist: int) -> int:
        """A token that no channel has."""
        number = 0
        while (token := runlist << RUNLIST_SHIFT | number) in self.channels:
            number += 1
        return token


def timer() -> int:
    """PTIMER, in ns."""
    return time.clock_gettime_ns(time.CLOCK_MONOTONIC)
