"""How translated code reaches memory: calls of the helpers, and accesses that stand in the code."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import NamedTuple

from drivers.emulated.simt import helpers, layout, ordered, patterns
from drivers.emulated.simt.registers import Registers
from drivers.emulated.simt.values import Value, llvm_type


class Where(NamedTuple):
    """A helper's form (`helpers.FORMS`) and the arguments that say where."""

    form: str
    arguments: list[Value]
    base: Value | None = None
    """What the first argument is `place` bytes from, if that is a base of other accesses too."""
    place: int = 0
    forms: tuple[ordered.Form, ...] = ordered.FORMS

    @classmethod
    def offset(
        cls, base: Value, place: int, offsets: Value,
        forms: tuple[ordered.Form, ...] = ordered.FORMS,
    ) -> Where:
        """A base for all lanes, so many bytes further, and an offset for each."""
        return cls("offset", [base + place if place else base, offsets], base, place, forms)


@functools.cache
def _place(function: str) -> int:
    return layout.CONTEXT_FUNCTIONS + 8 * patterns.exports().index(function)


class Access(Registers):
    """The part of a translator that reads and writes memory, whatever the instruction set."""

    slots: dict[int, int]
    """Of memory instructions, by pc."""
    pc = 0
    """Of the instruction at hand."""
    patterns: dict[tuple[str, int, int], ordered.Pattern]
    """Of a block's offsets, by their value, the elements' size and the half of the wave."""
    groups: dict[tuple[str, ordered.Pattern, int, bool], ordered.Group]
    """A block's accesses that are tested together: by base, pattern, elements' size, and whether
    they write."""

    def context_field(self, name: str) -> Value:
        """A 64-bit field of the thread's context."""
        offset = getattr(layout, f"CONTEXT_{name}")
        at = self.emit(f"getelementptr i8, ptr %context, i64 {offset}")
        return self.value(f"load i64, ptr {at}", "u64", False)

    def _slot(self, which: int = 0) -> str:
        """Of the instruction at hand, which has one for each memory that it may access."""
        offset = layout.CONTEXT_SLOTS + layout.SLOT_BYTES * (self.slots[self.pc] + which)
        return self.emit(f"getelementptr i8, ptr %context, i64 {offset}")

    def helper_address(self, function: str) -> str:
        """Where a helper is, as the table in the context has it."""
        at = self.emit(f"getelementptr i8, ptr %context, i64 {_place(function)}")
        return self.emit(f"load ptr, ptr {at}")

    def _call(
        self, function: str, results: list[str], arguments: list[Value],
        lanes: Value | None = None, slot: int = 0,
    ) -> list[Value]:
        """Calls a helper, which serves 32 lanes, for the whole wave; `results` are types.

        Only `lanes` of EXEC take part. `slot` is which of the instruction's.
        """
        bits = None
        if lanes is not None:
            active = lanes if self.exec_full else lanes & self.mask(self.exec_index)
            bits = self.value(
                f"bitcast {active.llvm} {active.text} to i{self.wave_size}", self.bits_type, False
            )
        if not function.startswith("load"):
            self.settle()
        if self.exec_full and bits is None and not function.startswith("atomic"):
            function += "_full"
        pointer = self.helper_address(function)
        parts = []
        for part in range(self.wave_size // helpers.LANES):
            if bits is None:
                chosen = self.scalar(self.exec_index + part)
            else:
                chosen = (bits >> 32 * part).to("u32")
            exec = f"i32 {chosen.text}"
            where = ["ptr %context", f"ptr {self._slot(slot)}", exec]
            given = [self._part(argument, part) for argument in arguments]
            parts.append(self._outcome(f"{pointer}({', '.join([*where, *given])})", results))
        return [
            self._joined(same, type)
            for same, type in zip(zip(*parts, strict=True), results, strict=True)
        ]

    def _load_known(
        self, kind: str, results: list[str], where: Where
    ) -> Callable[[], list[Value]]:
        """A load of a full wave, with the pattern of its offsets found once in a block."""
        slot, parts = self._slot(), range(self.wave_size // helpers.LANES)
        (base, offsets), size = where.arguments, helpers.LOADS[kind][0]
        found = [self._pattern(offsets, size, part) for part in parts]

        def one(pattern: ordered.Pattern) -> list[str]:
            given = f"ptr %context, ptr {slot}, i64 {base.text}, {pattern.known}"
            slowly = functools.partial(self._helper, f"load_{kind}_known", given, results)
            group = self._group(where, slot, pattern, size, False)
            return ordered.load(self, kind, group, where.place, slowly)

        def emit() -> list[Value]:
            halves = zip(*(one(pattern) for pattern in found), strict=True)
            return [
                self._joined(same, type) for same, type in zip(halves, results, strict=True)
            ]

        return emit

    def _store_known(self, kind: str, where: Where, data: list[Value]) -> None:
        """A store of a full wave in the same way."""
        self.settle()
        (base, offsets), size = where.arguments, helpers.STORES[kind][0]
        for part in range(self.wave_size // helpers.LANES):
            pattern = self._pattern(offsets, size, part)
            slot, values = self._slot(), [self._half(value, part) for value in data]
            given = f"ptr %context, ptr {slot}, i32 -1, i64 {base.text}, "
            given += self._part(offsets, part)
            given += "".join(f", {helpers.VECTOR} {value}" for value in values)
            slowly = functools.partial(self._helper, f"store_{kind}_offset_full", given, [])
            group = self._group(where, slot, pattern, size, True)
            ordered.store(self, kind, group, where.place, values, slowly)

    def _group(
        self, where: Where, slot: str, pattern: ordered.Pattern, size: int, writes: bool
    ) -> ordered.Group:
        """What an access is tested with: one range may be read and not written."""
        assert where.base is not None
        key = where.base.text, pattern, size, writes
        found = self.groups.get(key)
        if found is None:
            found = self.groups[key] = ordered.Group(
                self, slot, where.base.text, pattern, size, where.place, where.forms
            )
        return found

    def _pattern(self, offsets: Value, size: int, part: int) -> ordered.Pattern:
        """How offsets of elements of so many bytes lie in a half of the wave."""
        key = (offsets.text, size, part)
        if key not in self.patterns:
            given = self._half(offsets, part)
            self.patterns[key] = ordered.find(self, size, given, lambda: self.emit(
                f"call {patterns.PATTERN} {self.helper_address(f'pattern_{size}')}"
                f"({helpers.VECTOR} {given}) cold"
            ))
        return self.patterns[key]

    def _helper(self, function: str, arguments: str, results: list[str]) -> list[str]:
        """Calls a helper where that is the exception."""
        return self._outcome(f"{self.helper_address(function)}({arguments}) cold", results)

    def _outcome(self, call: str, results: list[str]) -> list[str]:
        types = [llvm_type(type, helpers.LANES) for type in results]
        if not types:
            self.do(f"call void {call}")
            return []
        if len(types) == 1:
            return [self.emit(f"call {types[0]} {call}")]
        both = "{" + ", ".join(types) + "}"
        text = self.emit(f"call {both} {call}")
        return [self.emit(f"extractvalue {both} {text}, {j}") for j in range(len(types))]

    def _part(self, value: Value, part: int) -> str:
        """A helper's argument: the scalar, or the values of the 32 lanes that it serves."""
        if not value.lanes:
            return f"{value.llvm} {value.text}"
        return f"{llvm_type(value.type, helpers.LANES)} {self._half(value, part)}"

    def _half(self, value: Value, part: int) -> str:
        """The values of the 32 lanes that a helper serves."""
        if self.wave_size == helpers.LANES:
            return value.text
        places = ", ".join(f"i32 {helpers.LANES * part + lane}" for lane in range(helpers.LANES))
        return self.emit(
            f"shufflevector {value.llvm} {value.text}, {value.llvm} poison, "
            f"<{helpers.LANES} x i32> <{places}>"
        )

    def _joined(self, parts: tuple[str, ...], type: str) -> Value:
        if len(parts) == 1:
            return Value(self, parts[0], type, True)
        half, places = llvm_type(type, helpers.LANES), self.each_lane("u32", range(self.wave_size))
        return self.value(
            f"shufflevector {half} {parts[0]}, {half} {parts[1]}, {places.llvm} {places.text}",
            type, True,
        )
