"""A machine with AMD boards in it: which paths there are, and what opening them gives."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable
from typing import NamedTuple

from drivers.emulated.amd import topology
from drivers.emulated.amd.boards import BOARDS, Board
from drivers.emulated.amd.kfd import KfdFile, RenderFile
from drivers.emulated.amd.process import KfdProcess
from drivers.emulated.amd.topology import Gpu
from drivers.emulated.model import Model, OpenFile, TextFile

GPU_LIMIT = 16
OPTIONS = ("strict", "small_bar")


class Description(NamedTuple):
    """What a machine consists of, and how its engines are scheduled."""

    gpus: list[Gpu]
    seed: int | None = None
    strict: bool = False


def parse(description: str) -> Description:
    """What 'gfx1100', 'gfx1100,gfx1201', 'gfx1100*2' or 'gfx1100,seed=7,strict' says.

    Raises ValueError.
    """
    boards: list[Board] = []
    seed: int | None = None
    options = set()
    for item in map(str.strip, description.split(",")):
        option, equals, value = item.partition("=")
        name, star, count = item.partition("*")
        if option == "seed" and equals and value.isdecimal():
            seed = int(value)
        elif item in OPTIONS:
            options.add(item)
        elif name in BOARDS and (count.isdecimal() if star else True):
            boards += [BOARDS[name]] * (int(count) if star else 1)
        else:
            known = ", ".join((*BOARDS, "seed=N", *OPTIONS))
            raise ValueError(f"no emulated board {item!r}; there are {known}")
    if not 1 <= len(boards) <= GPU_LIMIT:
        raise ValueError(f"{len(boards)} boards; a machine has 1 to {GPU_LIMIT}")
    large_bar = "small_bar" not in options
    gpus = [Gpu(index, board, large_bar) for index, board in enumerate(boards)]
    return Description(gpus, seed, "strict" in options)


class Machine(Model):
    """One program's view of the machine."""

    def __init__(self, description: str, bell: int, program: int) -> None:
        self.log: list[str] = []
        self.gpus, seed, strict = parse(description)
        self.process = KfdProcess(self.gpus, self.log, bell, program, seed, strict)
        self._files = topology.files(self.gpus)

    def open(self, path: str, flags: int) -> OpenFile:
        """Opens a device node or a file of sysfs."""
        if path == "/dev/kfd":
            return KfdFile(self.process)
        for gpu in self.gpus:
            if path == f"/dev/dri/renderD{gpu.render_minor}":
                return RenderFile(self.process, gpu.index)
        text = self._files.get(path)
        if text is not None:
            if flags & os.O_ACCMODE != os.O_RDONLY:
                raise OSError(errno.EACCES, f"{path} is to be read")
            return TextFile(text)
        if any(name.startswith(path.rstrip("/") + "/") for name in self._files):
            raise OSError(errno.EISDIR, f"{path} is a folder")
        raise OSError(errno.ENOENT, path)

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
