"""ctypes, the C compiler at generation time, and this machine's own header agree on the ABI."""

from __future__ import annotations

import ctypes
import importlib
import json
import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from autogen import kfd

HOME = Path(__file__).resolve().parents[2] / "autogen"
LAYOUTS = json.loads((HOME / "layouts.json").read_text(encoding="utf-8"))
SYSTEM_HEADER = Path("/usr/include/linux/kfd_ioctl.h")
COMPILER = shutil.which("gcc") or shutil.which("clang")


def class_of(module: str, c_name: str) -> type[ctypes.Structure]:
    found = getattr(importlib.import_module(f"autogen.{module}"), c_name.replace(" ", "_"))
    assert issubclass(found, ctypes.Structure | ctypes.Union)
    return found


def type_of(aggregate: type, name: str) -> type:
    """The type of a field, of an unnamed member's too."""
    fields = {entry[0]: entry[1] for entry in aggregate._fields_}  # type: ignore[attr-defined]
    if name in fields:
        return fields[name]
    for unnamed in aggregate._anonymous_:  # type: ignore[attr-defined]
        if hasattr(fields[unnamed], name):
            return type_of(fields[unnamed], name)
    raise AttributeError(name)


def measure(aggregate: type, path: str) -> list[int]:
    """[offset, size] of a field, or [size] of the whole for the empty path."""
    if not path:
        return [ctypes.sizeof(aggregate)]
    offset = 0
    for name in path.split("."):
        field = getattr(aggregate, name)
        offset, size, aggregate = offset + field.offset, field.size, type_of(aggregate, name)
    return [offset, size]


@pytest.mark.parametrize(
    ("module", "c_name"), [(module, name) for module in LAYOUTS for name in LAYOUTS[module]]
)
def test_ctypes_has_the_layout_that_the_compiler_had(module: str, c_name: str) -> None:
    recorded = LAYOUTS[module][c_name]
    aggregate = class_of(module, c_name)
    assert {path: measure(aggregate, path) for path in recorded} == recorded


@pytest.mark.parametrize("module", LAYOUTS)
def test_no_structure_escapes_the_record(module: str) -> None:
    """What C cannot name (`union x_0`, a member's own type) is recorded through its holder."""
    made = vars(importlib.import_module(f"autogen.{module}")).items()
    names = {
        name
        for name, value in made
        if isinstance(value, type)
        and issubclass(value, ctypes.Structure | ctypes.Union)
        and value.__name__ == name
    }
    recorded = {name.replace(" ", "_") for name in LAYOUTS[module]}
    tags = {name.partition("_")[2] for name in recorded}
    unnamed = {name for name in names - recorded if re.fullmatch(r"\w+_\d+", name)}
    for name in names - recorded - unnamed:  # struct x_y: the type of the member y of x
        assert any(name.partition("_")[2].startswith(f"{tag}_") for tag in tags), name


# nr, direction (1 written by the program, 2 read, 3 both) and size, from facts on the 6.12 kernel
IOCTLS = {
    "GET_VERSION": (0x01, 2, 8),
    "CREATE_QUEUE": (0x02, 3, 96),
    "DESTROY_QUEUE": (0x03, 3, 8),
    "CREATE_EVENT": (0x08, 3, 32),
    "WAIT_EVENTS": (0x0C, 3, 24),
    "ACQUIRE_VM": (0x15, 1, 8),
    "ALLOC_MEMORY_OF_GPU": (0x16, 3, 40),
    "FREE_MEMORY_OF_GPU": (0x17, 1, 8),
    "MAP_MEMORY_TO_GPU": (0x18, 3, 24),
    "UNMAP_MEMORY_FROM_GPU": (0x19, 3, 24),
    "SVM": (0x20, 3, 24),
    "DBG_TRAP": (0x26, 3, 32),
}


def ioctl_parts(number: int) -> tuple[int, int, int, int]:
    """nr, type letter, size, direction."""
    return number & 0xFF, number >> 8 & 0xFF, number >> 16 & 0x3FFF, number >> 30


@pytest.mark.parametrize("name", IOCTLS)
def test_ioctl_numbers_are_numbers(name: str) -> None:
    nr, letter, size, direction = ioctl_parts(getattr(kfd, f"AMDKFD_IOC_{name}"))
    assert (nr, direction, size) == IOCTLS[name] and letter == ord("K")


def test_an_ioctl_carries_the_size_of_its_argument() -> None:
    checked = 0
    for name, number in vars(kfd).items():
        argument = f"struct_kfd_ioctl_{name.removeprefix('AMDKFD_IOC_').lower()}_args"
        if name.startswith("AMDKFD_IOC_") and hasattr(kfd, argument):
            assert ioctl_parts(number)[2] == ctypes.sizeof(getattr(kfd, argument)), name
            checked += 1
    assert checked > 25


def test_the_queue_argument_has_the_known_offsets() -> None:
    """The offsets that every user of KFD relies on, retyped from the kernel's ABI."""
    queue = kfd.struct_kfd_ioctl_create_queue_args
    known = {"doorbell_offset": 24, "ring_size": 32, "gpu_id": 36, "queue_id": 52, "eop_size": 64}
    known["eop_buffer_size"] = known.pop("eop_size")
    assert {name: getattr(queue, name).offset for name in known} == known
    event = kfd.struct_kfd_event_data
    assert (ctypes.sizeof(event), event.event_id.offset) == (48, 40)


def compiled(statements: list[str], folder: Path) -> dict[int, str]:
    """What each statement prints against the system's header; those it rejects are left out.

    Debian 12's linux-libc-dev lacks drm.h, of which kfd_ioctl.h needs no more than its types.
    """
    assert COMPILER
    head = ["#include <stdio.h>", f"#include <{SYSTEM_HEADER}>", "int main(void) {"]
    body = [f'printf("{i} "); {statement}' for i, statement in enumerate(statements)]
    source, program = folder / "probe.c", folder / "probe"
    (folder / "drm").mkdir()
    (folder / "drm" / "drm.h").write_text("#include <linux/types.h>\n#include <sys/ioctl.h>\n")
    unlimited = "-fmax-errors=0" if COMPILER.endswith("gcc") else "-ferror-limit=0"
    for _ in range(2):
        source.write_text("\n".join([*head, *body, "}"]), encoding="utf-8")
        arguments = [COMPILER, "-w", unlimited, f"-I{folder}", "-o", str(program), str(source)]
        done = subprocess.run(arguments, capture_output=True, text=True, timeout=60)
        if not done.returncode:
            break
        for line in set(re.findall(r"probe\.c:(\d+):\d+: error:", done.stderr)):
            body[int(line) - len(head) - 1] = ""
    printed = subprocess.run([program], capture_output=True, text=True, check=True, timeout=60)
    lines = (line.partition(" ") for line in printed.stdout.splitlines())
    return {int(number): text for number, _, text in lines}


needs_header = pytest.mark.skipif(
    COMPILER is None or not SYSTEM_HEADER.exists(),
    reason="needs a C compiler and linux/kfd_ioctl.h (Debian: gcc, linux-libc-dev)",
)


@needs_header
def test_ioctl_numbers_are_those_of_this_machines_header(tmp_path: Path) -> None:
    """nr, letter and direction never change; a newer header's argument is as long or longer."""
    names = [name for name in vars(kfd) if name.startswith("AMDKFD_IOC_")]
    asked = ["KFD_IOCTL_MINOR_VERSION", *names]
    printed = compiled(
        [f'printf("%llu\\n", (long long unsigned){name});' for name in asked], tmp_path
    )
    older = int(printed.pop(0)) <= kfd.KFD_IOCTL_MINOR_VERSION
    assert len(printed) > 25
    for index, text in printed.items():
        ours, theirs = ioctl_parts(getattr(kfd, asked[index])), ioctl_parts(int(text))
        assert (ours[0], ours[1], ours[3]) == (theirs[0], theirs[1], theirs[3]), asked[index]
        assert theirs[2] <= ours[2] if older else theirs[2] >= ours[2], asked[index]


def plain_fields() -> Iterator[tuple[str, str]]:
    for c_name, fields in LAYOUTS["kfd"].items():
        yield from ((c_name, path) for path in fields if path)


@needs_header
def test_fields_lie_where_this_machines_header_has_them(tmp_path: Path) -> None:
    """A field that both versions know has the same place and size in both."""
    asked = [*plain_fields()]
    offset, size = "__builtin_offsetof({0}, {1})", "sizeof((({0} *)0)->{1})"
    statement = f'printf("%zu %zu\\n", {offset}, {size});'
    printed = compiled([statement.format(*names) for names in asked], tmp_path)
    assert len(printed) > 150
    for index, text in printed.items():
        c_name, path = asked[index]
        assert measure(class_of("kfd", c_name), path) == [int(n) for n in text.split()], asked[
            index
        ]
