"""A linker for one object file: lays out a relocatable ELF object as one flat image.

The image is position-independent: everything inside it is reached relative to the instruction.
Only absolute addresses (tables of pointers) are left to the loader, as `Relocation`s.
Objects are read with pyelftools, imported at first use.
"""

from __future__ import annotations

import io
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from compiler.code_object import Relocation
from compiler.elf_relocations import FIXUPS, Fixup
from compiler.errors import MalformedObject, UndefinedSymbol, UnsupportedObject

IMAGE_LIMIT = 64 << 20
"""Bytes. Kernels take a few KiB; a damaged size must not exhaust the machine's memory."""

ALIGNMENT_LIMIT = 4096
"""Bytes: images are loaded at a page's start."""

_SHF_ALLOC = 0x2
_SHF_EXECINSTR = 0x4
_SHF_TLS = 0x400
_SYMBOL_BYTES = _RELOCATION_BYTES = 24  # Elf64_Sym, Elf64_Rela
_SLOT_BYTES = 8
_NOT_LOADED = (".eh_frame", ".note")  # kernels throw nothing; drivers know what notes say


class Image(NamedTuple):
    """A laid-out object: its bytes, where the entry is, what the loader still writes."""

    bytes: bytes
    entry_offset: int
    relocations: tuple[Relocation, ...]


@dataclass
class _Section:
    """A section that takes memory at run time, at `offset` in the image."""

    name: str
    size: int
    data: bytes
    alignment: int
    executable: bool
    offset: int = 0


class _Symbol(NamedTuple):
    """A place: `value` bytes into a section of the image, or a name that is elsewhere."""

    name: str
    section: _Section | None
    value: int

    @property
    def address(self) -> int:
        """Counted from the image's start."""
        assert self.section is not None
        return self.section.offset + self.value


class _Change(NamedTuple):
    """A field in a section that depends on where `symbol` lies."""

    section: _Section
    offset: int
    fixup: Fixup
    symbol: _Symbol
    addend: int


@dataclass
class _Object:
    """What an object file says, with every number checked against its limit."""

    sections: dict[int, _Section] = field(default_factory=dict)
    symbols: list[_Symbol] = field(default_factory=list)
    changes: list[_Change] = field(default_factory=list)


def link(object: bytes, entry: str, executable: bool = True) -> Image:
    """Lays out the relocatable ELF `object`, in which `entry` names a function.

    Or, where it is not `executable`, data: the descriptor of a GPU's kernel.

    Raises MalformedObject for a damaged file, UndefinedSymbol for a name that the object
    refers to but lacks, UnsupportedObject for what the loader does not do.
    """
    try:
        parsed = _read(object)
    except (MalformedObject, UnsupportedObject):
        raise
    except Exception as error:  # pyelftools lets errors of many kinds out for a damaged file
        raise _malformed(f"{type(error).__name__} while reading it: {error}") from error
    size = _lay_out(parsed)
    start = _find_entry(parsed, entry, executable)
    image, relocations = _relocate(parsed, size)
    return Image(image, start, relocations)


def _malformed(what: str) -> MalformedObject:
    return MalformedObject(f"The object file is damaged: {what}.", operation="link")


def _unsupported(what: str) -> UnsupportedObject:
    return UnsupportedObject(
        f"The object file has {what}, which the loader does not do.", operation="link"
    )


def _read(object: bytes) -> _Object:
    from elftools.elf.elffile import ELFFile

    elf = ELFFile(io.BytesIO(object))
    header = elf.header
    if elf.elfclass != 64 or not elf.little_endian or header.e_type != "ET_REL":
        raise _unsupported(f"{elf.elfclass} bits, type {header.e_type}, not 64-bit ET_REL")
    if header.e_machine not in FIXUPS:
        raise _unsupported(f"machine code for {header.e_machine}")
    parsed = _Object()
    sections: list[Any] = list(elf.iter_sections())
    for section in sections:
        has_bytes = section.header.sh_type not in ("SHT_NOBITS", "SHT_NULL")
        if has_bytes and section.header.sh_offset + section.header.sh_size > len(object):
            raise _malformed(f"section {section.name!r} ends beyond the file's {len(object)} bytes")
    for number, section in enumerate(sections):
        if section.header.sh_flags & _SHF_ALLOC and section.name not in _NOT_LOADED:
            parsed.sections[number] = _read_section(section)
    for section in sections:
        if section.header.sh_type == "SHT_SYMTAB":
            _check_entries(section, _SYMBOL_BYTES)
            parsed.symbols.extend(_read_symbol(s, parsed) for s in section.iter_symbols())
    for section in sections:
        kind = section.header.sh_type
        if kind in ("SHT_RELA", "SHT_REL") and section.header.sh_info in parsed.sections:
            if kind == "SHT_REL":
                raise _unsupported("relocations without addends (SHT_REL)")
            _check_entries(section, _RELOCATION_BYTES)
            place = parsed.sections[section.header.sh_info]
            fixups = FIXUPS[header.e_machine]
            parsed.changes.extend(
                _read_change(r.entry, place, fixups, parsed) for r in section.iter_relocations()
            )
    return parsed


def _check_entries(section: Any, size: int) -> None:
    if section.header.sh_entsize != size or section.header.sh_size % size:
        raise _malformed(
            f"section {section.name!r} has entries of {section.header.sh_entsize} bytes in "
            f"{section.header.sh_size}, not of {size}"
        )


def _read_section(section: Any) -> _Section:
    header = section.header
    if header.sh_flags & _SHF_TLS:
        raise _unsupported(f"thread-local data ({section.name})")
    alignment = max(1, header.sh_addralign)
    if alignment & (alignment - 1) or alignment > ALIGNMENT_LIMIT:
        raise _malformed(
            f"section {section.name!r} is aligned to {alignment} bytes, "
            f"no power of two up to {ALIGNMENT_LIMIT}"
        )
    if header.sh_size > IMAGE_LIMIT:
        raise _malformed(
            f"section {section.name!r} takes {header.sh_size} bytes, more than {IMAGE_LIMIT}"
        )
    data = b"" if header.sh_type == "SHT_NOBITS" else section.data()
    executable = bool(header.sh_flags & _SHF_EXECINSTR)
    return _Section(section.name, header.sh_size, data, alignment, executable)


def _read_symbol(symbol: Any, parsed: _Object) -> _Symbol:
    where = symbol.entry.st_shndx
    if where == "SHN_COMMON":
        raise _unsupported(f"the common variable {symbol.name}")
    section = parsed.sections.get(where)
    value = symbol.entry.st_value
    if section is not None and value > section.size:
        raise _malformed(
            f"symbol {symbol.name!r} lies at {value}, beyond section {section.name!r} "
            f"of {section.size} bytes"
        )
    return _Symbol(symbol.name, section, value)


def _read_change(
    entry: Any, section: _Section, fixups: dict[int, Fixup], parsed: _Object
) -> _Change:
    fixup = fixups.get(entry.r_info_type)
    if fixup is None:
        raise _unsupported(f"a relocation of type {entry.r_info_type} in {section.name}")
    if entry.r_offset + fixup.size > section.size:
        raise _malformed(
            f"a {fixup.name} at {entry.r_offset} lies beyond section {section.name!r} "
            f"of {section.size} bytes"
        )
    if entry.r_info_sym >= len(parsed.symbols):
        raise _malformed(
            f"a {fixup.name} refers to symbol {entry.r_info_sym} of {len(parsed.symbols)}"
        )
    symbol = parsed.symbols[entry.r_info_sym]
    return _Change(section, entry.r_offset, fixup, symbol, entry.r_addend)


def _lay_out(parsed: _Object) -> int:
    """Gives every section its place in the image, in the file's order; the bytes they take."""
    end = 0
    for section in parsed.sections.values():
        section.offset = -(-end // section.alignment) * section.alignment
        end = section.offset + section.size
    if end > IMAGE_LIMIT:
        raise _malformed(f"its sections take {end} bytes, more than {IMAGE_LIMIT}")
    return end


def _find_entry(parsed: _Object, entry: str, executable: bool) -> int:
    for symbol in parsed.symbols:
        section = symbol.section
        if symbol.name == entry and section is not None and section.executable == executable:
            if symbol.value < section.size:
                return symbol.address
    kind = "function" if executable else "data"
    raise UndefinedSymbol(
        f"The object file defines no {kind} {entry!r}, which is to be its entry.",
        operation="link",
    )


def _relocate(parsed: _Object, size: int) -> tuple[bytes, tuple[Relocation, ...]]:
    """The image with all relative fields written and slots for addresses at its end."""
    first_slot = -(-size // _SLOT_BYTES) * _SLOT_BYTES
    slots: dict[int, int] = {}  # address of a symbol -> its slot
    image = bytearray(first_slot)
    for section in parsed.sections.values():
        image[section.offset : section.offset + len(section.data)] = section.data
    relocations = []
    for section, offset, fixup, symbol, addend in parsed.changes:
        if symbol.section is None:
            raise UndefinedSymbol(
                f"The machine code refers to {symbol.name!r}, which its object does not define: "
                "kernels are linked against no library.",
                operation="link",
            )
        place, target = section.offset + offset, symbol.address
        if fixup.through_slot:
            target = slots.setdefault(target, first_slot + len(slots) * _SLOT_BYTES)
        target += addend
        if fixup.write is None:
            relocations.append(Relocation(place, target))
            continue
        field = slice(place, place + fixup.size)
        old = int.from_bytes(image[field], "little")
        try:
            image[field] = fixup.write(old, target, place).to_bytes(fixup.size, "little")
        except OverflowError as error:
            raise _malformed(
                f"a {fixup.name} to {symbol.name!r} is out of reach: {error}"
            ) from error
    relocations.extend(Relocation(slot, address) for address, slot in slots.items())
    image.extend(bytes(len(slots) * _SLOT_BYTES))
    return bytes(image), tuple(relocations)
