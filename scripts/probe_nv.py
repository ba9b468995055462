"""Asks an NVIDIA GPU what no document says, one launch for each question, and prints a table.

    python scripts/probe_nv.py [--device NV:0] [--json FILE]

Which versions of the QMD it takes, what the memory descriptor in constant bank 0 must hold, and
whether the process is free of CUDA's libraries. A launch that the GPU refuses ends its channels;
the device is opened again for the next. What follows is written by hand into
drivers/nv/generations.py.
"""

from __future__ import annotations

import argparse
import json
import struct
import sys
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Final, NamedTuple

import numpy as np

from bringup_high import THREADS, TIMEOUT_MS
from bringup_nv_kernels import number_items
from drivers import open_device
from drivers.errors import HardwareError
from drivers.nv import qmd
from drivers.nv.device import NvDevice
from drivers.nv.program import NvProgram
from drivers.registry import emulated_system

VERSIONS: Final = {"V2": qmd.V2, "V3": qmd.V3, "V4": qmd.V4, "V5": qmd.V5}
# Where code loads 64 bits before every access to global memory, found by compiling.
DESCRIPTORS: Final = {
    "sm_80": 0x118, "sm_86": 0x118, "sm_89": 0x118, "sm_90": 0x208, "sm_100": 0x358,
    "sm_120": 0x358,
}  # fmt: skip
WORDS: Final = (0, 1, 0x0000_0000_FFFF_FFFF, 0xFFFF_FFFF_FFFF_FFFF)


class Answer(NamedTuple):
    """One question and what the GPU said."""

    question: str
    answer: str


def launched(
    name: str, prepare: Callable[[NvDevice], None], change: Callable[[NvProgram], None]
) -> str:
    """Runs a kernel on a device of its own: 'right', how many results are wrong, or the error."""
    device = open_device(name, system=emulated_system("NV"), timeout_ms=TIMEOUT_MS)
    assert isinstance(device, NvDevice)
    generation = device.gpu.generation
    with device:
        try:
            prepare(device)
            program = device.load(number_items(device.target))
            assert isinstance(program, NvProgram)
            change(program)
            out = device.alloc(4 * THREADS * 4)
            np.frombuffer(out.cpu_view(), np.int32)[:] = -1
            device.compute_queue().commands().exec(program, (out,), (4, 1, 1)).submit().wait()
            found = np.frombuffer(out.cpu_view(), np.int32)
            wrong = int(np.count_nonzero(found != 3 * np.arange(found.size) + 7))
            return f"{wrong} of {found.size} results are wrong" if wrong else "right"
        except (HardwareError, KeyError, ValueError) as error:
            return f"{type(error).__name__}: {error}"
        finally:
            device.gpu.generation = generation


def nothing(_: object) -> None:
    """Leaves things as they are."""


def questions(name: str) -> list[Answer]:
    """Asks everything."""
    with open_device(name, system=emulated_system("NV")) as device:
        assert isinstance(device, NvDevice)
        arch = device.gpu.generation.name
    found = []
    for version, layout in VERSIONS.items():

        def prepare(device: NvDevice, layout: qmd.Qmd = layout) -> None:
            device.gpu.generation = replace(device.gpu.generation, qmd=layout)

        found.append(Answer(f"{arch}: QMD {version}", launched(name, prepare, nothing)))
    place = DESCRIPTORS.get(arch)
    for word in WORDS if place is not None else ():

        def change(program: NvProgram, word: int = word) -> None:
            assert place is not None
            program.change_bank(place, struct.pack("<Q", word))

        question = f"{arch}: constant bank 0 holds {word:#x} at {place:#x}"
        found.append(Answer(question, launched(name, nothing, change)))
    with open("/proc/self/maps", encoding="ascii", errors="replace") as file:
        files = {line.split()[-1] for line in file if "libcuda" in line}
    found.append(Answer("CUDA's libraries in this process", ", ".join(sorted(files)) or "none"))
    return found


def main(arguments: Sequence[str] | None = None) -> int:
    """Prints the table; 0 whatever the GPU said."""
    parser = argparse.ArgumentParser(description="Ask an NVIDIA GPU what no document says.")
    parser.add_argument("--device", default="NV:0")
    parser.add_argument("--json", metavar="FILE")
    options = parser.parse_args(arguments)
    answers = questions(options.device)
    for question, answer in answers:
        print(f"{question:<60} {answer}", flush=True)
    if options.json:
        with open(options.json, "w", encoding="utf-8") as file:
            json.dump([each._asdict() for each in answers], file, indent=1)
    return 0


if __name__ == "__main__":
    sys.exit(main())
