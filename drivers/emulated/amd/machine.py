"""A machine with AMD boards in it: which paths there are, and what opening them gives."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

from drivers.emulated import description as description_of
from drivers.emulated.amd import topology
from drivers.emulated.amd.boards import BOARDS
from drivers.emulated.amd.kfd import KfdFile, RenderFile
from drivers.emulated.amd.process import KfdProcess
from drivers.emulated.amd.topology import Gpu
from drivers.emulated.description import COMMON
from drivers.emulated.model import Model, OpenFile, open_text

OPTIONS = {**COMMON, "strict": None, "small_bar": None}


class Description(NamedTuple):
    """What a machine consists of, and how its engines are scheduled."""

    gpus: list[Gpu]
    seed: int | None = None
    strict: bool = False
    eager: bool = False


def parse(description: str) -> Description:
    """A description with AMD's boards and options. Raises ValueError."""
    said = description_of.read(description, BOARDS, OPTIONS)
    large_bar = "small_bar" not in said.options
    gpus = [Gpu(index, board, large_bar) for index, board in enumerate(said.boards)]
    return Description(gpus, said.seed, "strict" in said.options, said.eager)


class Machine(Model):
    """One program's view of the machine."""

    def __init__(self, description: str, bell: int, program: int) -> None:
        self.log: list[str] = []
        self.gpus, seed, strict, eager = parse(description)
        self.process = KfdProcess(self.gpus, self.log, bell, program, seed, strict, eager)
        self._files = topology.files(self.gpus)

    def open(self, path: str, flags: int) -> OpenFile:
        """Opens a device node or a file of sysfs."""
        if path == "/dev/kfd":
            return KfdFile(self.process)
        for gpu in self.gpus:
            if path == f"/dev/dri/renderD{gpu.render_minor}":
                return RenderFile(self.process, gpu.index)
        return open_text(self._files, path, flags)

    def files(self) -> dict[str, str]:
        """The files of sysfs."""
        return self._files

    def watch(self, idle: Callable[[], bool]) -> None:
        """Tells the schedule whether the program is asking something right now."""
        self.process.schedule.idle = idle

    def schedule(self) -> list[str]:
        """What the engines have done in which order, if a seed fixes it."""
        return self.process.schedule.lines()

    def descriptors(self) -> list[int]:
        """The backing of each GPU."""
        return [backing.descriptor for backing in self.process.backings]

    def reset(self) -> None:
        """The program has closed every node."""
        self.process.reset()

    def shut_down(self) -> None:
        """Nothing outlives this process."""
