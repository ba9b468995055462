"""Our loader beside LLVM's own linker: the same bytes for every architecture, only elsewhere.

`ld.lld-19` links what LLVM made into a shared object, as AMD's runtime loads it. Every symbol must
be the same bytes as ours but for fields that say how far apart two places lie; those must lead to
the place of the same symbol.
"""

from __future__ import annotations

import io
import shutil
import subprocess
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from elftools.elf.elffile import ELFFile

from compiler import elf, llvm
from compiler.amdgpu import ARCHITECTURES, KernelDescriptor, gpu_target
from compiler.elf_relocations import FIXUPS
from test.compiler.test_amdgpu import TABLE, compiled, objdump

TABLES = (
    TABLE.replace("@table", "@first").replace("@reads", "@other")
    + """
@floats = internal addrspace(4) constant [300 x float] zeroinitializer
@shared = internal addrspace(3) global [64 x float] poison, align 16
"""
    + TABLE.replace(
        "  store i32 %x",
        """  %f = getelementptr [300 x float], ptr addrspace(4) @floats, i64 0, i32 %x
  %v = load volatile i32, ptr addrspace(4) %f
  %l = getelementptr [64 x float], ptr addrspace(3) @shared, i32 0, i32 %v
  store volatile i32 %v, ptr addrspace(3) %l
  store i32 %v""",
    )
)
"""Two kernels, local memory, a table in .rodata beside the descriptors, and two that are equal in a
section of their own, of which lld makes one."""
SOURCES = {"one table": TABLE, "several tables": TABLES, "softmax": None, "matmul": None}


def lld(object: bytes, folder: Path) -> bytes:
    """The shared object that lld makes of `object`."""
    found = shutil.which("ld.lld-19")
    if found is None:
        pytest.skip("ld.lld-19 is not installed (Debian: apt-get install lld-19)")
    (folder / "kernel.o").write_bytes(object)
    subprocess.run([found, "-shared", "kernel.o", "-o", "kernel.so"], cwd=folder, check=True)
    return (folder / "kernel.so").read_bytes()


class Linked(NamedTuple):
    """Symbols at their places in memory, whoever put them there."""

    memory: bytes
    places: dict[str, int]


def sections(data: bytes) -> dict[str, Any]:
    return {s.name: s for s in ELFFile(io.BytesIO(data)).iter_sections()}


def symbols(object: bytes) -> list[Any]:
    """The symbols of a file; functions and data are those that have a size."""
    return list(sections(object)[".symtab"].iter_symbols())


def by_lld(object: bytes, folder: Path) -> Linked:
    data = lld(object, folder)
    places = {s.name: s.entry.st_value for s in symbols(data) if s.entry.st_size}
    memory = bytearray(max(places.values()) + (1 << 16))
    for section in sections(data).values():
        start = section.header.sh_addr
        if start and section.header.sh_type != "SHT_NOBITS":
            memory[start : start + section.header.sh_size] = section.data()
    return Linked(bytes(memory), places)


def by_us(object: bytes) -> Linked:
    places, memory = {}, b""
    for symbol in symbols(object):
        if symbol.entry.st_size:
            code = symbol.entry.st_info.type == "STT_FUNC"
            image = elf.link(object, symbol.name, executable=code)
            places[symbol.name], memory = image.entry_offset, image.bytes
            assert image.relocations == ()
    return Linked(memory, places)


def differences(object: bytes, one: Linked, other: Linked) -> list[str]:
    """Where two links of `object` do not agree."""
    found, known = [], symbols(object)
    sized = [s for s in known if s.entry.st_size]
    fields: dict[str, list[tuple[int, int]]] = {}
    for section, holder in ((".rela.text", ".text"), (".rela.rodata", ".rodata")):
        number = [s.name for s in ELFFile(io.BytesIO(object)).iter_sections()].index(holder)
        inside = [s for s in sized if s.entry.st_shndx == number]
        table = sections(object).get(section)
        for relocation in table.iter_relocations() if table is not None else ():
            at = relocation.entry.r_offset
            owner = next(s for s in inside if 0 <= at - s.entry.st_value < s.entry.st_size)
            kind = FIXUPS["EM_AMDGPU"][relocation.entry.r_info_type]
            offset = at - owner.entry.st_value
            fields.setdefault(owner.name, []).append((offset, kind.size))
            target = known[relocation.entry.r_info_sym]
            anchor = target  # a section is where a symbol in it says it is
            if not target.entry.st_size:
                anchor = next(s for s in sized if s.entry.st_shndx == target.entry.st_shndx)
            for linked in (one, other):
                place = linked.places[owner.name] + offset
                wanted = linked.places[anchor.name] - anchor.entry.st_value
                distance = wanted + target.entry.st_value + relocation.entry.r_addend - place
                if kind.name.endswith("_HI"):
                    distance >>= 32
                here = linked.memory[place : place + kind.size]
                if here != (distance % (1 << 8 * kind.size)).to_bytes(kind.size, "little"):
                    found.append(f"{kind.name} at {owner.name}+{offset:#x}")
    for symbol in sized:
        copies = []
        for linked in (one, other):
            start = linked.places[symbol.name]
            copy = bytearray(linked.memory[start : start + symbol.entry.st_size])
            for offset, size in fields.get(symbol.name, ()):
                copy[offset : offset + size] = bytes(size)
            copies.append(copy)
        if copies[0] != copies[1]:
            found.append(f"bytes of {symbol.name}")
    return found


def object_of(name: str, arch: str) -> bytes:
    return llvm.compile_ir(SOURCES[name] or compiled(name, arch).source, gpu_target(arch))


@pytest.mark.parametrize("arch", ARCHITECTURES)
@pytest.mark.parametrize("name", SOURCES)
def test_what_is_loaded_is_what_lld_links(name: str, arch: str, tmp_path: Path) -> None:
    object = object_of(name, arch)
    ours, theirs = by_us(object), by_lld(object, tmp_path)
    assert ours.places.keys() == theirs.places.keys()
    assert differences(object, ours, theirs) == []
    for name in ours.places:
        if name.endswith(".kd"):
            for linked in (ours, theirs):
                descriptor = KernelDescriptor.decode(linked.memory, linked.places[name])
                code = linked.places[name] + descriptor.kernel_code_entry_byte_offset
                assert code == linked.places[name.removesuffix(".kd")] and code % 256 == 0


def test_a_link_that_is_wrong_in_any_place_is_noticed(tmp_path: Path) -> None:
    object = object_of("several tables", "gfx1100")
    ours, theirs = by_us(object), by_lld(object, tmp_path)
    for symbol in symbols(object):
        for offset in range(0, symbol.entry.st_size, 4):
            wrong = bytearray(ours.memory)
            wrong[ours.places[symbol.name] + offset] ^= 0x40
            assert differences(object, Linked(bytes(wrong), ours.places), theirs)


@pytest.mark.parametrize("arch", ["gfx90a", "gfx942", "gfx1030", "gfx1100", "gfx1201"])
def test_objdump_sees_the_symbols_at_the_same_distances(arch: str, tmp_path: Path) -> None:
    object = object_of("several tables", arch)
    ours, theirs = by_us(object), by_lld(object, tmp_path)
    command = [objdump(), "--syms", str(tmp_path / "kernel.so")]
    listing = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    seen = {
        fields[-1]: int(fields[0], 16)
        for line in listing.splitlines()
        if (fields := line.split()) and fields[-1] in theirs.places
    }
    assert seen == theirs.places
    for one, other in (("reads", "other"), ("reads.kd", "other.kd"), ("floats", "other.kd")):
        assert seen[one] - seen[other] == ours.places[one] - ours.places[other]
