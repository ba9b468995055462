"""Registers, packets and enumerations of AMD's headers as compact tables.

These headers consist of plain #defines by the ten thousand, or of bit fields; what is kept of
them is declared in `autogen_modules.py`.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from autogen_fetch import AutogenError

Fields = dict[str, tuple[int, ...]]

REGISTER = re.compile(r"#define (?:mm|reg)(\w+?)(_BASE_IDX)?\s+(0x[0-9a-fA-F]+|\d+)\s*$", re.M)
REGISTER_FIELD = re.compile(
    r"#define\s+(\w+?)__(\w+?)(__SHIFT|_MASK)\s+(0x[0-9a-fA-F]+)L?\s*$", re.M
)
PACKET_FIELD = re.compile(
    r"#define (\w+?_PKT_\w+)_(offset|mask|shift)\s+(0x[0-9a-fA-F]+|\d+)\s*$", re.M
)
PACKET_TITLE = re.compile(r"\*\* Definitions for (\w+) packet")
FIELD_TITLE = re.compile(r"/\*define for (\w+) (word|field)\*/")
ENUM = re.compile(r"typedef enum (\w+) \{\n(.*?)\n\} \1;", re.S)
ENUM_VALUE = re.compile(r"^\s*(\w+)\s*=\s*(0x[0-9a-fA-F]+|\d+),?\s*$", re.M)
SEGMENT = re.compile(r"#define (\w+)_BASE__INST(\d+)_SEG(\d+)\s+(0x[0-9a-fA-F]+|\d+)\s*$", re.M)


def read(path: Path) -> str:
    """A header's text; some hold a stray byte that is no UTF-8."""
    return path.read_text(encoding="utf-8", errors="replace")


def registers(offsets: str, keep: Sequence[str]) -> dict[str, tuple[int, int]]:
    """Register → (offset in dwords, segment) from an *_offset.h, as far as it is kept."""
    allowed = re.compile("|".join(f"(?:{pattern})" for pattern in keep))
    found: dict[str, dict[str, int]] = {}
    for name, segment, number in REGISTER.findall(offsets):
        if allowed.fullmatch(name):
            found.setdefault(name, {})["segment" if segment else "offset"] = int(number, 0)
    return {name: (parts["offset"], parts["segment"]) for name, parts in found.items()}


def register_fields(masks: str, keep: Sequence[str]) -> dict[str, Fields]:
    """Register → field → (shift, width) from an *_sh_mask.h, as far as it is kept."""
    allowed = re.compile("|".join(f"(?:{pattern})" for pattern in keep))
    found: dict[str, dict[str, dict[str, int]]] = {}
    for register, field, kind, number in REGISTER_FIELD.findall(masks):
        if allowed.fullmatch(register):
            parts = found.setdefault(register, {}).setdefault(field, {})
            parts[kind.strip("_").lower()] = int(number, 16)
    return {
        register: {
            field: as_field(f"{register}.{field}", parts["shift"], parts["mask"] >> parts["shift"])
            for field, parts in fields.items()
        }
        for register, fields in found.items()
    }


def as_field(name: str, shift: int, mask: int) -> tuple[int, int]:
    """(shift, width); raises if the bits of the mask are not neighbours."""
    width = mask.bit_length()
    if mask != (1 << width) - 1 or not width or shift + width > 32:
        raise AutogenError(f"{name} has the mask {mask:#x} at {shift}, which is no bit field.")
    return shift, width


def sdma_packets(text: str) -> dict[str, Fields]:
    """Packet → field → (dword, shift, width) from a *_pkt_open.h.

    A field is called as in the header; where a packet has the name in two words, WORD.field.
    """
    packets: dict[str, Fields] = {}
    titles = [*PACKET_TITLE.finditer(text)]
    ends = [title.start() for title in titles[1:]] + [len(text)]
    for title, end in zip(titles, ends, strict=True):
        packet, section = title[1], text[title.end() : end]
        numbers: dict[str, dict[str, int]] = {}
        for name, kind, number in PACKET_FIELD.findall(section):
            numbers.setdefault(name, {})[kind] = int(number, 0)
        entries: list[tuple[str, str, dict[str, int]]] = []
        word = ""
        for name, kind in FIELD_TITLE.findall(section):
            if kind == "word":
                word = name
            else:
                entries.append((word, name, numbers.pop(f"{packet}_{word}_{name}")))
        if numbers:
            raise AutogenError(f"{packet} has fields without a title: {sorted(numbers)}")
        names = [field for _, field, _ in entries]
        packets[packet.replace("SDMA_PKT_", "").replace("SDMA_AQL_PKT_", "AQL_")] = {
            field if names.count(field) == 1 else f"{word}.{field}": (
                parts["offset"],
                *as_field(f"{packet}.{field}", parts["shift"], parts["mask"]),
            )
            for word, field, parts in entries
        }
    return packets


def enumerations(text: str, keep: Iterable[str]) -> dict[str, dict[str, int]]:
    """Enumeration → name → value, for those that are kept."""
    found = {
        name: {key: int(value, 0) for key, value in ENUM_VALUE.findall(body)}
        for name, body in ENUM.findall(text)
    }
    return {name: found[name] for name in keep}


def segments(text: str, keep: Sequence[str]) -> dict[str, list[tuple[int, ...]]]:
    """Block → instance → segment bases in dwords from an *_ip_offset.h, as far as there are."""
    allowed = re.compile("|".join(keep))
    bases: dict[str, dict[int, dict[int, int]]] = {}
    for block, instance, segment, number in SEGMENT.findall(text):
        if allowed.fullmatch(block):
            bases.setdefault(block, {}).setdefault(int(instance), {})[int(segment)] = int(number, 0)
    found = {
        block: [tuple(row[i] for i in sorted(row)) for _, row in sorted(instances.items())]
        for block, instances in bases.items()
    }
    return {block: [row for row in rows if any(row)] for block, rows in found.items()}


def mesa_registers(
    text: str, keep: Sequence[str]
) -> tuple[dict[str, Fields], dict[str, dict[str, int]]]:
    """Register → field → (shift, width), and enumeration → name → value, of Mesa's JSON."""
    allowed = re.compile("|".join(f"(?:{pattern})" for pattern in keep))
    data = json.loads(text)
    fields: dict[str, Fields] = {
        name: {
            field["name"]: (field["bits"][0], field["bits"][1] - field["bits"][0] + 1)
            for field in register["fields"]
        }
        for name, register in data["register_types"].items()
        if allowed.fullmatch(name)
    }
    values = {
        name: {entry["name"]: entry["value"] for entry in enumeration["entries"]}
        for name, enumeration in data["enums"].items()
        if allowed.fullmatch(name)
    }
    return fields, values


def constant_lines(values: Mapping[str, int | str]) -> str:
    """One assignment a line."""
    return "".join(f"{name} = {literal(value)}\n" for name, value in values.items())


def literal(value: int | str) -> str:
    """Strings with double quotes, large numbers in hex."""
    if isinstance(value, str):
        return '"' + value + '"'
    return str(value) if abs(value) < 256 else f"{value:#x}"


def nested_table(name: str, annotation: str, table: Mapping[str, object]) -> str:
    """A dictionary with one line for each plain entry."""
    return f"{name}: {annotation} = {{\n" + "".join(table_lines(table, 1)) + "}\n"


def table_lines(table: Mapping[str, object], depth: int) -> list[str]:
    """The entries of a dictionary, indented."""
    lines = []
    pad = "    " * depth
    for key, value in table.items():
        if isinstance(value, dict):
            lines += [f'{pad}"{key}": {{\n', *table_lines(value, depth + 1), f"{pad}}},\n"]
        else:
            lines.append(f'{pad}"{key}": {shown(value)},\n')
    return lines


def shown(value: object) -> str:
    """Numbers, and tuples and lists of them."""
    if isinstance(value, tuple):
        return "(" + ", ".join(map(shown, value)) + ("," if len(value) == 1 else "") + ")"
    if isinstance(value, list):
        return "[" + ", ".join(shown(item) for item in value) + "]"
    assert isinstance(value, int)
    return literal(value)
