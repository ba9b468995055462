"""A machine with NVIDIA boards in it: which paths there are, and what opening them gives."""

from __future__ import annotations

import platform
from collections.abc import Callable
from typing import NamedTuple

from drivers.emulated import description as description_of
from drivers.emulated.description import COMMON
from drivers.emulated.model import Model, OpenFile, open_text
from drivers.emulated.nv.abi import DEFAULT_VERSION, VERSIONS, Abi
from drivers.emulated.nv.boards import BOARDS, Board
from drivers.emulated.nv.gpu import Gpu
from drivers.emulated.nv.process import NvProcess
from drivers.emulated.nv.rm import ControlFile, DeviceFile
from drivers.emulated.nv.uvm import UvmFile

PROC = "/proc/driver/nvidia"
OPTIONS = {**COMMON, "driver": VERSIONS.__contains__, "container": None}


class Description(NamedTuple):
    """What a machine consists of, how its engines are scheduled, and its driver."""

    boards: list[Board]
    seed: int | None
    version: str
    container: bool
    eager: bool


def parse(description: str) -> Description:
    """A description with NVIDIA's boards and options, 'sm_90,driver=535.261.03' for instance.

    Raises ValueError.
    """
    said = description_of.read(description, BOARDS, OPTIONS)
    version = said.options.get("driver", DEFAULT_VERSION)
    return Description(said.boards, said.seed, version, "container" in said.options, said.eager)


class Machine(Model):
    """One program's view of the machine."""

    def __init__(self, description: str, bell: int, program: int) -> None:
        self.log: list[str] = []
        said = parse(description)
        self.gpus = [Gpu(index, board) for index, board in enumerate(said.boards)]
        self.process = NvProcess(
            self.gpus, self.log, bell, program, said.seed, Abi(said.version), said.container,
            said.eager,
        )
        self._files = _files(self.gpus, said.version)

    def open(self, path: str, flags: int) -> OpenFile:
        """Opens a device node or a file of /proc/driver/nvidia."""
        if path == "/dev/nvidiactl":
            return ControlFile(self.process)
        if path == "/dev/nvidia-uvm":
            return UvmFile(self.process)
        for gpu in self.gpus:
            if path == f"/dev/nvidia{gpu.minor}":
                return DeviceFile(self.process, gpu)
        return open_text(self._files, path, flags)

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
