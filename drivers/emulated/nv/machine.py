"""A machine with NVIDIA boards in it: which paths there are, and what opening them gives."""

from __future__ import annotations

import errno
import os
import platform
from collections.abc import Callable
from typing import NamedTuple

from drivers.emulated.model import Model, OpenFile, TextFile
from drivers.emulated.nv.abi import DEFAULT_VERSION, VERSIONS, Abi
from drivers.emulated.nv.boards import BOARDS, Board
from drivers.emulated.nv.gpu import Gpu
from drivers.emulated.nv.process import NvProcess
from drivers.emulated.nv.rm import ControlFile, DeviceFile
from drivers.emulated.nv.uvm import UvmFile

GPU_LIMIT = 16
PROC = "/proc/driver/nvidia"


class Description(NamedTuple):
    """What a machine consists of, how its engines are scheduled, and its driver."""

    boards: list[Board]
    seed: int | None
    version: str


def parse(description: str) -> Description:
    """What 'sm_90', 'sm_75,sm_90', 'sm_89*2' or 'sm_90,seed=7,driver=535.261.03' says.

    Raises ValueError.
    """
    boards: list[Board] = []
    seed, version = None, DEFAULT_VERSION
    for item in map(str.strip, description.split(",")):
        option, equals, value = item.partition("=")
        name, star, count = item.partition("*")
        if option == "seed" and equals and value.isdecimal():
            seed = int(value)
        elif option == "driver" and value in VERSIONS:
            version = value
        elif name in BOARDS and (count.isdecimal() if star else True):
            boards += [BOARDS[name]] * (int(count) if star else 1)
        else:
            drivers = (f"driver={version}" for version in VERSIONS)
            known = ", ".join((*BOARDS, "seed=N", *drivers))
            raise ValueError(f"no emulated board {item!r}; there are {known}")
    if not 1 <= len(boards) <= GPU_LIMIT:
        raise ValueError(f"{len(boards)} boards; a machine has 1 to {GPU_LIMIT}")
    return Description(boards, seed, version)


class Machine(Model):
    """One program's view of the machine."""

    def __init__(self, description: str, bell: int, program: int) -> None:
        self.log: list[str] = []
        boards, seed, version = parse(description)
        self.gpus = [Gpu(index, board) for index, board in enumerate(boards)]
        self.process = NvProcess(self.gpus, self.log, bell, program, seed, Abi(version))
        self._files = _files(self.gpus, version)

    def open(self, path: str, flags: int) -> OpenFile:
        """Opens a device node or a file of /proc/driver/nvidia."""
        if path == "/dev/nvidiactl":
            return ControlFile(self.process)
        if path == "/dev/nvidia-uvm":
            return UvmFile(self.process)
        for gpu in self.gpus:
            if path == f"/dev/nvidia{gpu.minor}":
                return DeviceFile(self.process, gpu)
        text = self._files.get(path)
        if text is None:
            raise OSError(errno.ENOENT, path)
        if flags & os.O_ACCMODE != os.O_RDONLY:
            raise OSError(errno.EACCES, f"{path} is to be read")
        return TextFile(text)

    def files(self) -> dict[str, str]:
        """The files of /proc/driver/nvidia."""
        return self._files

    def watch(self, idle: Callable[[], bool]) -> None:
        """Tells the schedule whether the program is asking something right now."""
        self.process.schedule.idle = idle

    def schedule(self) -> list[str]:
        """What the engines have done in which order, if a seed fixes it."""
        return self.process.schedule.lines()

    def descriptors(self) -> list[int]:
        """The backing of all memory."""
        return [self.process.backing.descriptor]

    def reset(self) -> None:
        """The program has closed every node."""
        self.process.reset()

    def shut_down(self) -> None:
        """Nothing outlives this process."""


def _files(gpus: list[Gpu], version: str) -> dict[str, str]:
    """What nv-procfs.c shows, as far as drivers look at it."""
    files = {
        f"{PROC}/version": (
            f"NVRM version: NVIDIA UNIX Open Kernel Module for {platform.machine()}  {version}  "
            "Release Build  (emulated)\nGCC version:  gcc\n"
        )
    }
    for gpu in gpus:
        location = f"0000:{gpu.bus:02x}:00.0"
        files[f"{PROC}/gpus/{location}/information"] = (
            f"Model: \t\t {gpu.board.marketing_name}\nGPU UUID: \t {gpu.uuid_text}\n"
            f"Bus Type: \t PCIe\nBus Location: \t {location}\nDevice Minor: \t {gpu.minor}\n"
        )
    return files
