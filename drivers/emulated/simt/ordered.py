"""Accesses inside translated code, for offsets that are in order: what most of a kernel does.

In both halves of 32 lanes the offsets are those of neighbours, or all the same (`Pattern`, found
once in a block). If so, and if the places lie in the range that was touched last (`Group`, found
out once for accesses side by side), the access is a few vector instructions; in all other cases it
is a call of the helper.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from drivers.emulated.simt import layout
from drivers.emulated.simt.helpers import LANES, LOADS, STORES, VECTOR, listed
from drivers.emulated.simt.patterns import GROUP, LEADERS, NEAR_16, PATTERN, WRAPPING
from drivers.emulated.simt.values import Build

HALF = 16
_HALVES = range(LANES // HALF)
_FIRSTS = listed((lane // HALF * HALF for lane in range(LANES)), "i32")


@dataclass(frozen=True)
class Pattern:
    """How 32 offsets lie, as names of values in the function."""

    near: str
    same: str
    starts: tuple[str, ...]
    """The offset of each half's first lane, as i64."""
    known: str
    """The arguments that tell a helper."""


def find(build: Build, size: int, offsets: str, search: Callable[[], str]) -> Pattern:
    """Looks at the offsets of elements of so many bytes; `search` calls the helper that does."""
    emit, given = build.emit, f"{VECTOR} {offsets}"
    first, other, done = (build.name() for _ in range(3))
    build.do(f"br label {first}")
    _begin(build, first)
    firsts = emit(f"shufflevector {given}, {VECTOR} poison, {VECTOR} {_FIRSTS}")
    delta = emit(f"sub {given}, {firsts}")
    steps = listed((lane % HALF * size for lane in range(LANES)), "i32")
    forms = []
    for wanted in (steps, "zeroinitializer"):
        far = emit(f"icmp ne {VECTOR} {delta}, {wanted}")
        bits = emit(f"bitcast <{LANES} x i1> {far} to i32")
        forms.append(emit(f"icmp eq i32 {bits}, 0"))
    starts = [emit(f"extractelement {given}, i32 {half * HALF}") for half in _HALVES]
    low = [emit(f"icmp ult i32 {start}, {WRAPPING}") for start in starts]
    lows, either = emit(f"and i1 {low[0]}, {low[1]}"), emit(f"or i1 {forms[0]}, {forms[1]}")
    near, same = (emit(f"and i1 {form}, {lows}") for form in forms)
    ordered = emit(f"and i1 {either}, {lows}")
    number = emit(f"select i1 {near}, i32 {NEAR_16}, i32 {NEAR_16 + 1}")
    places = listed(range(0, LANES, GROUP), "i32")
    leaders = emit(f"shufflevector {given}, {VECTOR} poison, {LEADERS} {places}")
    build.do(f"br i1 {ordered}, label {done}, label {other}")
    _begin(build, other)
    found = search()
    other_number = emit(f"extractvalue {PATTERN} {found}, 0")
    other_leaders = emit(f"extractvalue {PATTERN} {found}, 1")
    build.do(f"br label {done}")
    _begin(build, done)
    number = emit(f"phi i32 [ {number}, {first} ], [ {other_number}, {other} ]")
    leaders = emit(f"phi {LEADERS} [ {leaders}, {first} ], [ {other_leaders}, {other} ]")
    wide = tuple(emit(f"zext i32 {start} to i64") for start in starts)
    return Pattern(near, same, wide, f"{given}, i32 {number}, {LEADERS} {leaders}")


def _range(build: Build, slot: str) -> tuple[str, str]:
    """Where the range begins that was touched last, and its size."""
    start = build.emit(f"load i64, ptr {slot}")
    end_at = build.emit(f"getelementptr i8, ptr {slot}, i64 {layout.SLOT_END}")
    end = build.emit(f"load i64, ptr {end_at}")
    return start, build.emit(f"sub i64 {end}, {start}")


def scalar(
    build: Build, slot: str, address: str, size: int, otherwise: Callable[[], str]
) -> str:
    """Where a scalar load reads `size` bytes; `otherwise` calls the helper."""
    near, slow, done = (build.name() for _ in range(3))
    start, room = _range(build, slot)
    distance = build.emit(f"sub i64 {address}, {start}")
    limit = _intrinsic(build, "usub.sat", room, str(size - 1))
    inside = build.emit(f"icmp ult i64 {distance}, {limit}")
    build.do(f"br i1 {inside}, label {near}, label {slow}")
    _begin(build, near)
    there = build.emit(f"inttoptr i64 {address} to ptr")
    build.do(f"br label {done}")
    _begin(build, slow)
    other = otherwise()
    build.do(f"br label {done}")
    _begin(build, done)
    return build.emit(f"phi ptr [ {there}, {near} ], [ {other}, {slow} ]")


class Group:
    """Accesses of one block that differ in a constant only: their places are tested together.

    All of them begin at `base` and an offset of the pattern, `first` to `last` bytes further. That
    they lie in the range that the first instruction of them touched last is found out where the
    first of them stands; the bounds are written into its text as more of them come.
    """

    def __init__(
        self, build: Build, slot: str, base: str, pattern: Pattern, size: int, place: int
    ) -> None:
        self.build, self.size, self.first, self.last = build, size, place, place
        start, room = _range(build, slot)
        self._bounds: list[tuple[int, str, int]] = []  # line, text before the number, sign or size
        lowest = self._bound(f"sub i64 {start}, ", 0)
        places = [build.emit(f"add i64 {base}, {each}") for each in pattern.starts]
        distances = [build.emit(f"sub i64 {each}, {lowest}") for each in places]
        farthest = _intrinsic(build, "umax", *distances)
        self.pointers = [build.emit(f"inttoptr i64 {each} to ptr") for each in places]
        build.declarations.add("declare i64 @llvm.usub.sat.i64(i64, i64)")
        self.near, self.same = (
            self._test(farthest, room, form, extent)
            for form, extent in ((pattern.near, HALF * size), (pattern.same, size))
        )
        self._write()

    def _bound(self, text: str, extent: int) -> str:
        """An instruction whose last operand is a bound: of `extent` bytes at each, or the first."""
        result = self.build.emit(text)
        self._bounds.append((len(self.build.lines) - 1, self.build.lines[-1], extent))
        return result

    def _test(self, farthest: str, room: str, form: str, extent: int) -> str:
        """Whether that form is the offsets', and so many bytes at each place are in the range."""
        limit = self._bound(f"call i64 @llvm.usub.sat.i64(i64 {room}, i64 ", extent)
        inside = self.build.emit(f"icmp ult i64 {farthest}, {limit}")
        return self.build.emit(f"and i1 {inside}, {form}")

    def _write(self) -> None:
        for line, text, extent in self._bounds:
            bound = f"{self.last - self.first + extent - 1})" if extent else f"{self.first}"
            self.build.lines[line] = text + bound

    def at(self, place: int) -> list[str]:
        """Where the halves of an access begin that is one of them, `place` bytes from the base."""
        if not self.first <= place <= self.last:
            self.first, self.last = min(self.first, place), max(self.last, place)
            self._write()
        emit = self.build.emit
        return [emit(f"getelementptr i8, ptr {each}, i64 {place}") for each in self.pointers]


def _intrinsic(build: Build, name: str, left: str, right: str) -> str:
    build.declarations.add(f"declare i64 @llvm.{name}.i64(i64, i64)")
    return build.emit(f"call i64 @llvm.{name}.i64(i64 {left}, i64 {right})")


def _begin(build: Build, label: str) -> None:
    build.lines.append(f"{label[1:]}:")


def load(
    build: Build, kind: str, group: Group, place: int, otherwise: Callable[[], list[str]]
) -> list[str]:
    """One kind of load for 32 lanes; its registers. `otherwise` calls the helper."""
    _, registers, element = LOADS[kind]
    near, other, same, slow, done = (build.name() for _ in range(5))
    pointers = group.at(place)
    build.do(f"br i1 {group.near}, label {near}, label {other}")
    _begin(build, other)
    build.do(f"br i1 {group.same}, label {same}, label {slow}")
    results = []
    for label, values in ((near, _near), (same, _same)):
        _begin(build, label)
        results.append([
            _extended(build, kind, value)
            for value in values(build, pointers, registers, element)
        ])
        build.do(f"br label {done}")
    _begin(build, slow)
    results.append(otherwise())
    build.do(f"br label {done}")
    _begin(build, done)
    return [
        build.emit(f"phi {VECTOR} [ {a}, {near} ], [ {b}, {same} ], [ {c}, {slow} ]")
        for a, b, c in zip(*results, strict=True)
    ]


def _near(build: Build, pointers: list[str], registers: int, element: str) -> list[str]:
    block = f"<{HALF * registers} x {element}>"
    low, high = (build.emit(f"load {block}, ptr {pointer}, align 1") for pointer in pointers)
    return [
        build.emit(f"shufflevector {block} {low}, {block} {high}, <{LANES} x i32> "
                   f"{listed(range(j, LANES * registers, registers), 'i32')}")
        for j in range(registers)
    ]


def _same(build: Build, pointers: list[str], registers: int, element: str) -> list[str]:
    half, values = f"<{HALF} x {element}>", []
    for j in range(registers):
        halves = []
        for pointer in pointers:
            at = build.emit(f"getelementptr i8, ptr {pointer}, i64 {4 * j}")
            one = build.emit(f"load {element}, ptr {at}, align 1")
            halves.append(build.emit(f"insertelement {half} poison, {element} {one}, i32 0"))
        places = listed((lane // HALF * HALF for lane in range(LANES)), "i32")
        values.append(build.emit(f"shufflevector {half} {halves[0]}, {half} {halves[1]}, "
                                 f"<{LANES} x i32> {places}"))
    return values


def _extended(build: Build, kind: str, value: str) -> str:
    element = LOADS[kind][2]
    if element == "i32":
        return value
    extension = "sext" if kind[0] == "i" else "zext"
    return build.emit(f"{extension} <{LANES} x {element}> {value} to {VECTOR}")


def store(
    build: Build, kind: str, group: Group, place: int, data: list[str],
    otherwise: Callable[[], object],
) -> None:
    """One kind of store for 32 lanes; `otherwise` calls the helper."""
    _, registers, element = STORES[kind]
    near, slow, done = (build.name() for _ in range(3))
    pointers = group.at(place)
    build.do(f"br i1 {group.near}, label {near}, label {slow}")
    _begin(build, near)
    count = HALF * registers
    for half, pointer in zip(_HALVES, pointers, strict=True):
        parts = [_half(build, value, half, element) for value in data]
        while len(parts) & len(parts) - 1:
            parts.append("poison")
        width = HALF
        while len(parts) > 1:
            joined = []
            for low, high in zip(parts[::2], parts[1::2], strict=True):
                joined.append(build.emit(
                    f"shufflevector <{width} x {element}> {low}, <{width} x {element}> {high}, "
                    f"<{2 * width} x i32> {listed(range(2 * width), 'i32')}"
                ))
            parts, width = joined, 2 * width
        joined_text = parts[0]
        if registers > 1:
            places_text = listed(
                (i % registers * HALF + i // registers for i in range(count)), "i32"
            )
            joined_text = build.emit(
                f"shufflevector <{width} x {element}> {parts[0]}, <{width} x {element}> poison, "
                f"<{count} x i32> {places_text}"
            )
        build.do(f"store <{count} x {element}> {joined_text}, ptr {pointer}, align 1")
    build.do(f"br label {done}")
    _begin(build, slow)
    otherwise()
    build.do(f"br label {done}")
    _begin(build, done)


def _half(build: Build, value: str, half: int, element: str) -> str:
    lanes = listed(range(half * HALF, (half + 1) * HALF), "i32")
    part = build.emit(
        f"shufflevector {VECTOR} {value}, {VECTOR} poison, <{HALF} x i32> {lanes}"
    )
    if element == "i32":
        return part
    return build.emit(f"trunc <{HALF} x i32> {part} to <{HALF} x {element}>")
