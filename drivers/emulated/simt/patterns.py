"""LLVM IR that finds once how the offsets in a register lie, for all loads that take it.

Many loads of a kernel differ only in their scalar base or constant offset, local memory's above
all. `pattern_SIZE` looks at the offsets of a full wave; `load_KIND_known` then has to check its
range only. What has no pattern, or lies outside the range, is left to the helper that looks for
itself (`helpers.py`).
"""

from __future__ import annotations

from drivers.emulated.simt import helpers
from drivers.emulated.simt.helpers import (
    LANES,
    LOADS,
    MASK,
    VECTOR,
    WIDE,
    bounds,
    gather,
    gathered_groups,
    listed,
    result_type,
)

GROUP = 8
"""Lanes of the smallest group; each group's first lane is its leader."""
LEADERS = f"<{LANES // GROUP} x i32>"
PATTERN = f"{{i32, {LEADERS}}}"
"""What a search returns: twice the number of a group's size, plus 1 where its lanes have one
address instead of neighbouring ones; and the leaders' offsets."""
_SIZES = (32, 16, 8)
_NONE = 2 * len(_SIZES)
NUMBERS = {
    (lanes, form): 2 * number + odd
    for number, lanes in enumerate(_SIZES) for odd, form in enumerate(("near", "same"))
}
WRAPPING = 0xFFFFF000
"""Offsets from here on may lead a group over 2³², where they begin anew."""


ELEMENT_SIZES = sorted({size for size, _, _ in LOADS.values()})


def exports() -> list[str]:
    """All helpers in the order of a context's table."""
    found = [f"pattern_{size}" for size in ELEMENT_SIZES]
    return [*helpers.exports(), *found, *(f"load_{kind}_known" for kind in LOADS)]


def pattern(size: int) -> str:
    """The search, for elements of so many bytes."""
    leaders = listed(range(0, LANES, GROUP), "i32")
    count = LANES // GROUP
    text = f"""
define internal {PATTERN} @pattern_{size}({VECTOR} %offsets) noinline {{
entry:
  %leaders = shufflevector {VECTOR} %offsets, {VECTOR} poison, {LEADERS} {leaders}
  %found = insertvalue {PATTERN} poison, {LEADERS} %leaders, 1
  %low = icmp ult {LEADERS} %leaders, {listed((WRAPPING for _ in range(count)), "i32")}
  %low.bits = bitcast <{count} x i1> %low to i{count}
  %no.wrap = icmp eq i{count} %low.bits, -1
  br i1 %no.wrap, label %look0, label %none
"""
    for number, lanes in enumerate(_SIZES):
        firsts = listed((lane // lanes * lanes for lane in range(LANES)), "i32")
        steps = listed((lane % lanes * size for lane in range(LANES)), "i32")
        following = f"look{number + 1}" if number + 1 < len(_SIZES) else "none"
        text += f"look{number}:\n"
        text += f"  %firsts{number} = shufflevector {VECTOR} %offsets, {VECTOR} poison, "
        text += f"{VECTOR} {firsts}\n"
        text += f"  %delta{number} = sub {VECTOR} %offsets, %firsts{number}\n"
        for odd, (kind, wanted) in enumerate((("near", steps), ("same", "zeroinitializer"))):
            name = f"{kind}{number}"
            text += f"""  %{name}.far = icmp ne {VECTOR} %delta{number}, {wanted}
  %{name}.bits = bitcast <{LANES} x i1> %{name}.far to i32
  %{name} = icmp eq i32 %{name}.bits, 0
  br i1 %{name}, label %is.{name}, label %{f"other{number}" if not odd else following}
is.{name}:
  %{name}.found = insertvalue {PATTERN} %found, i32 {2 * number + odd}, 0
  ret {PATTERN} %{name}.found
"""
            if not odd:
                text += f"other{number}:\n"
    return text + f"""none:
  %nothing = insertvalue {PATTERN} %found, i32 {_NONE}, 0
  ret {PATTERN} %nothing
}}
"""


def load(kind: str) -> str:
    """One kind of load with a known pattern, for a full EXEC."""
    size, registers, _ = LOADS[kind]
    result, count = result_type(registers), LANES // GROUP
    wide = f"<{count} x i64>"

    def splat(name: str, value: str, type: str) -> str:
        places = type.replace("i64", "i32")
        return (f"  %{name}.0 = insertelement {type} poison, i64 {value}, i32 0\n"
                f"  %{name} = shufflevector {type} %{name}.0, {type} poison, "
                f"{places} zeroinitializer\n")

    pointers = ""
    for lanes in _SIZES:
        for j in range(LANES // lanes):
            place = f"%g{lanes}.a{j} = extractelement {wide} %places"
            pointers += f"  {place}, i32 {j * lanes // GROUP}\n"
            pointers += f"  %g{lanes}.p{j} = inttoptr i64 %g{lanes}.a{j} to ptr\n"
    labels = " ".join(
        f"i32 {2 * number + odd}, label %{name}.{lanes}"
        for number, lanes in enumerate(_SIZES) for odd, name in enumerate(("near", "same"))
    )
    text = f"""
define internal {result} @load_{kind}_known(ptr %context, ptr %slot, i64 %base,
    {VECTOR} %offsets, i32 %pattern, {LEADERS} %leaders) noinline {{
entry:
  %range.first = load i64, ptr %slot
  %range.end.at = getelementptr i8, ptr %slot, i64 8
  %range.end = load i64, ptr %range.end.at
  %is.same.bit = and i32 %pattern, 1
  %is.same = icmp ne i32 %is.same.bit, 0
  %extent = select i1 %is.same, i64 {size}, i64 {GROUP * size}
  %room = sub i64 %range.end, %range.first
  %enough = icmp uge i64 %room, %extent
  %span.bytes = sub i64 %room, %extent
  %leaders.wide = zext {LEADERS} %leaders to {wide}
{splat("bases", "%base", wide)}{splat("starts", "%range.first", wide)}
{splat("limits", "%span.bytes", wide)}
  %places = add {wide} %bases, %leaders.wide
  %distances = sub {wide} %places, %starts
  %beyond = icmp ugt {wide} %distances, %limits
  %beyond.bits = bitcast <{count} x i1> %beyond to i{count}
  %inside = icmp eq i{count} %beyond.bits, 0
  %fits = and i1 %inside, %enough
  %is.none = icmp eq i32 %pattern, {_NONE}
  br i1 %is.none, label %scattered, label %ordered
ordered:
  br i1 %fits, label %choose, label %search
scattered:
  %mask = bitcast i32 -1 to {MASK}
{splat("all.bases", "%base", WIDE)}  %offsets.wide = zext {VECTOR} %offsets to {WIDE}
  %addresses = add {WIDE} %all.bases, %offsets.wide
{bounds(size)}  br i1 %good, label %gather, label %search
{gather(kind)}choose:
{pointers}  switch i32 %pattern, label %search [ {labels} ]
search:
  %found = call {result} @load_{kind}_offset_full(
      ptr %context, ptr %slot, i32 -1, i64 %base, {VECTOR} %offsets)
  ret {result} %found
"""
    text += "".join(gathered_groups(kind, lanes) for lanes in _SIZES)
    return text + "}\n"


def text() -> str:
    """The IR of all helpers."""
    return "\n".join([helpers.text(), *map(pattern, ELEMENT_SIZES), *map(load, LOADS)])
