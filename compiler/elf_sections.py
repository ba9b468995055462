"""The tables of an ELF64 file, read with limits: a damaged file costs no more than a whole one.

Numbers of a file decide how much is read again and again: names without an end, tables of more
entries than bytes, sections that lie on one another. So everything has its limit here, and what
is read altogether is at most a few times the file. Sizes and places: elf.h.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterator
from typing import NamedTuple

SECTION_LIMIT, SYMBOL_LIMIT, NAME_LIMIT = 1 << 14, 1 << 16, 1 << 12
_READ_FACTOR = 4
"""Bytes that are read altogether, in sizes of the file."""

_HEADER = struct.Struct("<16sHHIQQQIHHHHHH")
_SECTION = struct.Struct("<IIQQQQIIQQ")
_SYMBOL = struct.Struct("<IBBHQQ")
_RELA, _REL = struct.Struct("<QQq"), struct.Struct("<QQ")
_MAGIC = b"\x7fELF\x02\x01"  # 64 bits, little-endian
NOBITS, REL = 8, 9  # sh_type
_COMPRESSED = 0x800  # sh_flags
_UNDEFINED, _RESERVED = 0, 0xFF00  # st_shndx


class Section(NamedTuple):
    """One section header."""

    name: str
    kind: int
    flags: int
    offset: int
    size: int
    link: int
    entry_bytes: int


class Symbol(NamedTuple):
    """A name, and the section that it is in; None if it is elsewhere."""

    name: str
    section: Section | None
    value: int


class Entry(NamedTuple):
    """One relocation."""

    offset: int
    kind: int
    symbol: int
    addend: int


class ElfFile:
    """Sections by name. `malformed` makes the error that is raised for a damaged file."""

    def __init__(self, content: bytes, malformed: Callable[[str], Exception]) -> None:
        self.content, self._malformed = content, malformed
        self._left = _READ_FACTOR * len(content)
        if len(content) < _HEADER.size or not content.startswith(_MAGIC):
            raise malformed("it is no ELF file of 64 bits")
        (identity, _, self.machine, _, _, _, at, self.flags, _, _, _, size, count, names) = (
            _HEADER.unpack_from(content)
        )
        self.abi_version = identity[8]
        if size != _SECTION.size or not 0 < count <= SECTION_LIMIT or names >= count:
            raise malformed(f"its header tells of {count} sections of {size} bytes")
        if at + count * size > len(content):
            raise malformed("its table of sections ends behind the file")
        headers = list(_SECTION.iter_unpack(content[at : at + count * size]))
        strings = self._bytes(headers[names][4], headers[names][5], "the table of names")
        self.numbered = [
            Section(self._name(strings, name), kind, flags, offset, length, link, entry)
            for name, kind, flags, _, offset, length, link, _, _, entry in headers
        ]
        self.sections = {section.name: section for section in self.numbered}

    def _bytes(self, offset: int, size: int, name: str) -> bytes:
        if offset + size > len(self.content):
            raise self._malformed(f"section {name} ends behind the file")
        self._left -= size
        if self._left < 0:
            raise self._malformed("its sections lie on one another")
        return self.content[offset : offset + size]

    def _name(self, strings: bytes, at: int) -> str:
        end = strings.find(b"\0", at, at + NAME_LIMIT)
        if at >= len(strings) or end < 0:
            raise self._malformed(f"a name at {at} of {len(strings)} bytes has no end")
        return strings[at:end].decode(errors="replace")

    def data(self, name: str) -> bytes:
        """A section's bytes; none if it is not there or has none in the file."""
        section = self.sections.get(name)
        if section is None or section.kind == NOBITS:
            return b""
        if section.flags & _COMPRESSED:
            raise self._malformed(f"section {name} is compressed")
        return self._bytes(section.offset, section.size, name)

    def _table(self, name: str, entry: struct.Struct) -> Iterator[tuple[int, ...]]:
        content = self.data(name)
        if self.sections[name].entry_bytes != entry.size or len(content) % entry.size:
            raise self._malformed(f"{name} has {len(content)} bytes, no whole entries")
        return entry.iter_unpack(content)

    def symbols(self, name: str) -> list[Symbol]:
        """The symbols of a table."""
        table = self.sections[name]
        if table.size > SYMBOL_LIMIT * _SYMBOL.size or table.link >= len(self.numbered):
            raise self._malformed(f"{name} has {table.size} bytes and names in {table.link}")
        names = self.numbered[table.link]
        strings = self._bytes(names.offset, names.size, names.name)
        found = []
        for at, _, _, number, value, _ in self._table(name, _SYMBOL):
            inside = number != _UNDEFINED and number < min(_RESERVED, len(self.numbered))
            section = self.numbered[number] if inside else None
            found.append(Symbol(self._name(strings, at), section, value))
        return found

    def relocations(self, name: str) -> Iterator[Entry]:
        """The entries of a section `.rela.NAME` or `.rel.NAME`."""
        kind = _REL if self.sections[name].kind == REL else _RELA
        for offset, info, *addend in self._table(name, kind):
            yield Entry(offset, info & 0xFFFFFFFF, info >> 32, addend[0] if addend else 0)
