"""Packets that AMD's C++ headers declare as structures of bit fields, read through libclang."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING

from autogen_fetch import AutogenError
from autogen_macros import Probe, as_constant, compiler_headers
from autogen_tables import Fields
from autogen_types import libclang

if TYPE_CHECKING:
    from clang.cindex import Cursor, Type

# Members that only group the bits of one dword, or name it whole: no part of a field's name.
GROUP = re.compile(r"bitfields\d+[a-z]?|\w*_UNION|DW_\d+_DATA|ordinal\d+|u32All")
RESERVED = re.compile(r"(reserved\w*)?")  # or without a name


def declarations(probe: Probe) -> list[Cursor]:
    """Everything that the probe's headers declare, at any depth."""
    from clang.cindex import Config, Index

    if not Config.loaded:
        Config.set_library_file(str(libclang()))
    folders = [f"-I{folder}" for folder in (compiler_headers(), *probe.folders)]
    unit = Index.create().parse(
        "all.h", args=["-x", "c++", *folders], unsaved_files=[("all.h", probe.prologue)]
    )
    errors = [str(found) for found in unit.diagnostics if found.severity >= found.Error]
    if errors:
        raise AutogenError(f"libclang cannot read the headers: {errors[0]}")
    return [*unit.cursor.walk_preorder()]


def constants_of(cursors: Iterable[Cursor], keep: str) -> dict[str, int | str]:
    """The enumerators and the integer constants whose names match."""
    from clang.cindex import CursorKind

    found: dict[str, int | str] = {}
    for cursor in cursors:
        if not re.fullmatch(keep, cursor.spelling):
            continue
        if cursor.kind == CursorKind.ENUM_CONSTANT_DECL:
            found[cursor.spelling] = as_constant(cursor.enum_value, True, 4, "")
        elif cursor.kind == CursorKind.VAR_DECL and cursor.type.is_const_qualified():
            tokens = [token.spelling for token in cursor.get_tokens()]
            if tokens[-2:-1] == ["="] and tokens[-1][0].isdigit():
                found[cursor.spelling] = int(tokens[-1], 0)
    return found


def packets_of(cursors: Iterable[Cursor], names: Mapping[str, str]) -> dict[str, Fields]:
    """Packet → field → (dword, shift, width), as libclang lays the structures out.

    `names` maps the C type to the table's key.
    """
    from clang.cindex import CursorKind

    packets: dict[str, Fields] = {}
    for cursor in cursors:
        kinds = (CursorKind.TYPEDEF_DECL, CursorKind.STRUCT_DECL)
        if cursor.kind in kinds and cursor.spelling in names:
            fields: Fields = {}
            collect(cursor.type.get_canonical(), 0, "", fields)
            packets[names[cursor.spelling]] = fields
    missing = {*names.values()} - {*packets}
    if missing:
        raise AutogenError(f"The headers declare no packet {', '.join(sorted(missing))}.")
    return {key: packets[key] for key in names.values()}


def collect(record: Type, base_bits: int, prefix: str, fields: Fields) -> None:
    """Adds the fields of a record that begins at a bit of its packet."""
    from clang.cindex import TypeKind

    for member in members(record.get_declaration()):
        if member.spelling == "header" or RESERVED.fullmatch(member.spelling):
            continue
        start = base_bits + record.get_offset(member.spelling)
        kind = member.type.get_canonical()
        name = prefix + member.spelling
        if kind.kind == TypeKind.RECORD:
            collect(kind, start, prefix if GROUP.fullmatch(member.spelling) else name + ".", fields)
        elif not GROUP.fullmatch(member.spelling):
            width = member.get_bitfield_width() if member.is_bitfield() else 8 * kind.get_size()
            if fields.setdefault(name, (start // 32, start % 32, width))[:2] != (
                start // 32,
                start % 32,
            ):
                raise AutogenError(f"A packet has two fields {name}.")


def members(record: Cursor) -> list[Cursor]:
    """The fields of a record, those of its unnamed records included."""
    from clang.cindex import CursorKind

    children = [*record.get_children()]
    fields = [child for child in children if child.kind == CursorKind.FIELD_DECL]
    named = [field.type.get_canonical().get_declaration() for field in fields]
    found: list[Cursor] = []
    for child in children:
        if child.kind == CursorKind.FIELD_DECL:
            found.append(child)
        elif child.kind in (CursorKind.STRUCT_DECL, CursorKind.UNION_DECL):
            if child.is_anonymous() and child not in named:
                found.extend(members(child))
    return found
