"""Accesses inside translated code, for offsets that are in order: what most of a kernel does.

In each sixteen lanes, or each eight, the offsets are those of neighbours, or all the same
(`Pattern`, found once in a block). If so, and if the places lie in the range that was touched last
(`Group`, found out once for accesses side by side), an access is a few vector instructions; in all
other cases it is a call of the helper.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from drivers.emulated.simt import layout
from drivers.emulated.simt.helpers import LANES, LOADS, STORES, VECTOR, listed
from drivers.emulated.simt.patterns import GROUP, LEADERS, NUMBERS, PATTERN, WRAPPING
from drivers.emulated.simt.values import Build

Form = tuple[int, str]
"""Lanes side by side, and whether theirs are neighbours' offsets or one."""
FORMS: tuple[Form, ...] = ((16, "near"), (16, "same"))
"""Those that stand in the code, in the order of trial."""
LOCAL_FORMS: tuple[Form, ...] = (*FORMS, (8, "near"), (8, "same"))
"""The same for local memory: a workgroup of 8 × 8 reads it in these, over and over."""
_PARTS = range(LANES // GROUP)


@dataclass(frozen=True)
class Pattern:
    """How 32 offsets lie, as names of values in the function."""

    number: str
    """Which form it is (`patterns.NUMBERS`)."""
    leaders: str
    """The offsets of each eight's first lane."""
    lowest: str
    highest: str
    """Of these, as i64."""
    known: str
    """The arguments that tell a helper."""


def find(build: Build, size: int, offsets: str, search: Callable[[], str]) -> Pattern:
    """Looks at the offsets of elements of so many bytes; `search` calls the helper that does."""
    emit, given = build.emit, f"{VECTOR} {offsets}"
    first, other, done = (build.name() for _ in range(3))
    build.do(f"br label {first}")
    _begin(build, first)
    leaders = _picked(build, offsets, range(0, LANES, GROUP), LANES, "i32")
    lowest, highest = (_reduced(build, name, leaders) for name in ("umin", "umax"))
    lanes = FORMS[0][0]
    places = listed((lane // lanes * lanes for lane in range(LANES)), "i32")
    firsts = emit(f"shufflevector {given}, {VECTOR} poison, {VECTOR} {places}")
    delta = emit(f"sub {given}, {firsts}")
    steps = listed((lane % lanes * size for lane in range(LANES)), "i32")
    forms = []
    for wanted in (steps, "zeroinitializer"):
        far = emit(f"icmp ne {VECTOR} {delta}, {wanted}")
        bits = emit(f"bitcast <{LANES} x i1> {far} to i32")
        forms.append(emit(f"icmp eq i32 {bits}, 0"))
    either = emit(f"or i1 {forms[0]}, {forms[1]}")
    no_wrap = emit(f"icmp ult i32 {highest}, {WRAPPING}")
    ordered = emit(f"and i1 {either}, {no_wrap}")
    near, same = (NUMBERS[form] for form in FORMS)
    number = emit(f"select i1 {forms[0]}, i32 {near}, i32 {same}")
    build.do(f"br i1 {ordered}, label {done}, label {other}")
    _begin(build, other)
    found = search()
    other_number = emit(f"extractvalue {PATTERN} {found}, 0")
    build.do(f"br label {done}")
    _begin(build, done)
    number = emit(f"phi i32 [ {number}, {first} ], [ {other_number}, {other} ]")
    low, high = (emit(f"zext i32 {each} to i64") for each in (lowest, highest))
    known = f"{given}, i32 {number}, {LEADERS} {leaders}"
    return Pattern(number, leaders, low, high, known)


def _reduced(build: Build, name: str, leaders: str) -> str:
    function = f"@llvm.vector.reduce.{name}.v{len(_PARTS)}i32"
    build.declarations.add(f"declare i32 {function}({LEADERS})")
    return build.emit(f"call i32 {function}({LEADERS} {leaders})")


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
        self, build: Build, slot: str, base: str, pattern: Pattern, size: int, place: int,
        forms: tuple[Form, ...],
    ) -> None:
        self.build, self.base, self.pattern, self.forms = build, base, pattern, forms
        self.first = self.last = place
        start, room = _range(build, slot)
        self._bounds: list[tuple[int, str, int]] = []  # line, text before the number, extent
        lowest = self._bound(f"sub i64 {start}, ", 0)
        near = build.emit(f"sub i64 {base}, {lowest}")
        distances = [build.emit(f"add i64 {near}, {each}")
                     for each in (pattern.lowest, pattern.highest)]
        farthest = _intrinsic(build, "umax", *distances)
        build.declarations.add("declare i64 @llvm.usub.sat.i64(i64, i64)")
        even = build.emit(f"and i32 {pattern.number}, 1")
        is_near = build.emit(f"icmp eq i32 {even}, 0")
        limits = [self._bound(f"call i64 @llvm.usub.sat.i64(i64 {room}, i64 ", extent)
                  for extent in (GROUP * size, size)]
        limit = build.emit(f"select i1 {is_near}, i64 {limits[0]}, i64 {limits[1]}")
        inside = build.emit(f"icmp ult i64 {farthest}, {limit}")
        self.form = build.emit(f"select i1 {inside}, i32 {pattern.number}, i32 -1")
        """The number of the form, where all of them lie inside."""
        self._write()

    def _bound(self, text: str, extent: int) -> str:
        """An instruction whose last operand is a bound: of `extent` bytes at each, or the first."""
        result = self.build.emit(text)
        self._bounds.append((len(self.build.lines) - 1, self.build.lines[-1], extent))
        return result

    def _write(self) -> None:
        for line, text, extent in self._bounds:
            bound = f"{self.last - self.first + extent - 1})" if extent else f"{self.first}"
            self.build.lines[line] = text + bound

    def include(self, place: int) -> None:
        """One more access, `place` bytes from the base."""
        if not self.first <= place <= self.last:
            self.first, self.last = min(self.first, place), max(self.last, place)
            self._write()

    def at(self, place: int, lanes: int) -> list[str]:
        """Where an access begins in each so many lanes, `place` bytes from the base."""
        emit, found = self.build.emit, []
        for lane in range(0, LANES, lanes):
            leader = emit(f"extractelement {LEADERS} {self.pattern.leaders}, i32 {lane // GROUP}")
            wide = emit(f"zext i32 {leader} to i64")
            start = emit(f"add i64 {self.base}, {wide}")
            pointer = emit(f"inttoptr i64 {start} to ptr")
            found.append(emit(f"getelementptr i8, ptr {pointer}, i64 {place}"))
        return found

    def branch(self, form: Form, label: str, on: str) -> None:
        """To `label` if all of them have a form, else on, where what comes next stands."""
        so = self.build.emit(f"icmp eq i32 {self.form}, {NUMBERS[form]}")
        self.build.do(f"br i1 {so}, label {label}, label {on}")


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
    group.include(place)
    slow, done = build.name(), build.name()
    labels, results = [], []
    for form in group.forms:
        label, on = build.name(), build.name()
        group.branch(form, label, on)
        _begin(build, label)
        values = _near if form[1] == "near" else _same
        results.append([
            _extended(build, kind, value)
            for value in values(build, group.at(place, form[0]), form[0], registers, element)
        ])
        labels.append(label)
        build.do(f"br label {done}")
        _begin(build, on)
    build.do(f"br label {slow}")
    _begin(build, slow)
    results.append(otherwise())
    build.do(f"br label {done}")
    _begin(build, done)
    return [
        build.emit(f"phi {VECTOR} " + ", ".join(
            f"[ {value}, {label} ]" for value, label in zip(same, [*labels, slow], strict=True)
        ))
        for same in zip(*results, strict=True)
    ]


def _near(
    build: Build, pointers: list[str], lanes: int, registers: int, element: str
) -> list[str]:
    count = lanes * registers
    parts = [build.emit(f"load <{count} x {element}>, ptr {each}, align 1") for each in pointers]
    whole, width = _joined(build, parts, count, element), LANES * registers
    return [
        _picked(build, whole, range(j, width, registers), width, element)
        for j in range(registers)
    ]


def _same(
    build: Build, pointers: list[str], lanes: int, registers: int, element: str
) -> list[str]:
    part, values = f"<{lanes} x {element}>", []
    for j in range(registers):
        parts = []
        for pointer in pointers:
            at = build.emit(f"getelementptr i8, ptr {pointer}, i64 {4 * j}")
            one = build.emit(f"load {element}, ptr {at}, align 1")
            first = build.emit(f"insertelement {part} poison, {element} {one}, i32 0")
            parts.append(_picked(build, first, [0] * lanes, lanes, element))
        values.append(_joined(build, parts, lanes, element))
    return values


def _joined(build: Build, parts: list[str], width: int, element: str) -> str:
    """Vectors of `width` elements, two to the power of something, one after the other."""
    while len(parts) > 1:
        given, both = f"<{width} x {element}>", listed(range(2 * width), "i32")
        parts = [
            build.emit(f"shufflevector {given} {low}, {given} {high}, <{2 * width} x i32> {both}")
            for low, high in zip(parts[::2], parts[1::2], strict=True)
        ]
        width *= 2
    return parts[0]


def _picked(
    build: Build, value: str, places: range | list[int], width: int, element: str
) -> str:
    """Some elements of a vector of `width`, in order."""
    chosen = list(places)
    if chosen == list(range(width)):
        return value
    given = f"<{width} x {element}>"
    return build.emit(f"shufflevector {given} {value}, {given} poison, "
                      f"<{len(chosen)} x i32> {listed(iter(chosen), 'i32')}")


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
    group.include(place)
    done = build.name()
    for lanes, form in group.forms:
        if form == "same":
            continue
        label, on = build.name(), build.name()
        group.branch((lanes, form), label, on)
        _begin(build, label)
        for part, pointer in enumerate(group.at(place, lanes)):
            _store_part(build, kind, pointer, data, range(part * lanes, (part + 1) * lanes))
        build.do(f"br label {done}")
        _begin(build, on)
    otherwise()
    build.do(f"br label {done}")
    _begin(build, done)


def _store_part(build: Build, kind: str, pointer: str, data: list[str], lanes: range) -> None:
    """Stores what some lanes have, who are neighbours."""
    _, registers, element = STORES[kind]
    parts = []
    for value in data:
        part = _picked(build, value, lanes, LANES, "i32")
        if element != "i32":
            part = build.emit(f"trunc <{len(lanes)} x i32> {part} to <{len(lanes)} x {element}>")
        parts.append(part)
    while len(parts) & len(parts) - 1:
        parts.append("poison")
    width, count = len(lanes) * len(parts), len(lanes) * registers
    rows = [i % registers * len(lanes) + i // registers for i in range(count)]
    joined = _joined(build, parts, len(lanes), element)
    if registers > 1:
        joined = _picked(build, joined, rows, width, element)
    build.do(f"store <{count} x {element}> {joined}, ptr {pointer}, align 1")
