"""NVIDIA's class headers as tables: methods of a class with their fields, and the fields of a QMD.

The headers are plain #defines in a fixed order: a method (or a QMD's prefix), its fields as
`high:low`, then the values of a field.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from autogen_fetch import AutogenError
from autogen_tables import Fields

DEFINE = re.compile(r"^#define\s+(\w+)(\(i\))?\s+(.+?)\s*(?:/[*/].*)?$", re.M)
NUMBER = re.compile(r"\(?(0x[0-9a-fA-F]+|\d+)[uU]?\)?")
RANGE = re.compile(r"(\d+):(\d+)")
STEPPED = re.compile(r"\(?(0x[0-9a-fA-F]+|\d+)\s*\+\s*\(i\)\s*\*\s*(0x[0-9a-fA-F]+|\d+)\)?")
MANY_WORDS = re.compile(r"MW\((.+):(.+)\)")

LOOSE = "ENTRY"  # of fields that are no method's: of entries in rings, headers, other structures

Values = dict[str, dict[str, int]]


def methods_of(
    text: str, prefix: str, keep: Sequence[str]
) -> tuple[dict[str, tuple[int, ...]], dict[str, Fields], Values]:
    """Methods, fields and values of one class, as far as the methods are kept.

    Methods: name → (offset in bytes,), or (offset, stride) for those that there are several of.
    Fields: method → field → (shift, width); under ENTRY those of no method.
    Values: METHOD.FIELD → name → value.
    """
    allowed = re.compile("|".join(f"(?:{pattern})" for pattern in keep or (".*",)))
    methods: dict[str, tuple[int, ...]] = {}
    fields: dict[str, Fields] = {}
    values: Values = {}
    method = field = full = ""  # `full` is the field's whole name in the header
    for name, _, body in DEFINE.findall(text):
        if not name.startswith(prefix):
            continue
        name = name.removeprefix(prefix)
        if bits := RANGE.fullmatch(body):
            if not name.startswith(method + "_"):
                method = LOOSE
            field, full = name.removeprefix(method + "_"), name
            fields.setdefault(method, {})[field] = (int(bits[2]), int(bits[1]) - int(bits[2]) + 1)
        elif (number := NUMBER.fullmatch(body)) and full and name.startswith(full + "_"):
            value = name.removeprefix(full + "_")
            values.setdefault(f"{method}.{field}", {})[value] = int(number[1], 0)
        elif number:
            methods[name], method, full = (int(number[1], 0),), name, ""
        elif stepped := STEPPED.fullmatch(body):
            methods[name] = (int(stepped[1], 0), int(stepped[2], 0))
            method, full = name, ""
    kept = {name: place for name, place in methods.items() if allowed.fullmatch(name)}
    if not kept:
        raise AutogenError(f"No method of {prefix} is left.")
    return (
        kept,
        {name: table for name, table in fields.items() if name in {*kept, LOOSE}},
        {name: table for name, table in values.items() if name.partition(".")[0] in {*kept, LOOSE}},
    )


def qmds_of(text: str) -> tuple[dict[str, Fields], dict[str, Values]]:
    """Fields and values of each version of a QMD that a header has.

    Fields: version → field → (first bit, width), or (first bit, width, stride) for arrays.
    """
    fields: dict[str, Fields] = {}
    values: dict[str, Values] = {}
    version = field = ""
    for name, _, body in DEFINE.findall(text):
        found = re.fullmatch(r"NV\w{4}_(QMDV\d\d_\d\d)_(\w+)", name)
        if not found:
            continue
        if words := MANY_WORDS.fullmatch(body):
            version, field = found[1], found[2]
            fields.setdefault(version, {})[field] = _place(words[1], words[2])
        elif (number := NUMBER.fullmatch(body)) and found[2].startswith(field + "_"):
            table = values.setdefault(version, {}).setdefault(field, {})
            table[found[2].removeprefix(field + "_")] = int(number[1], 0)
    return fields, values


def _place(high: str, low: str) -> tuple[int, ...]:
    if low.isdecimal():
        return int(low), int(high) - int(low) + 1
    first, last = STEPPED.fullmatch(low), STEPPED.fullmatch(high)
    if first is None or last is None or first[2] != last[2]:
        raise AutogenError(f"A QMD's field lies at {high}:{low}, which is no place.")
    start = int(first[1], 0)
    return start, int(last[1], 0) - start + 1, int(first[2], 0)
