"""LLVM IR written through values with operators, so that semantics read like arithmetic.

A Value is a scalar or one value for each lane of a wave. Its type is a letter and a width: `f32`
float, `i32` signed, `u32` and `b32` unsigned, `m1` a truth value. Operators follow the type:
`>>` on `i32` keeps the sign, `<` on `u32` compares without one. Numbers become constants.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable, Sequence

_FLOAT = {16: "half", 32: "float", 64: "double"}


def llvm_type(type: str, lanes: int = 0) -> str:
    """`f32` → `float`, or `<32 x float>` of 32 lanes."""
    width = int(type[1:])
    scalar = _FLOAT[width] if type[0] == "f" else f"i{width}"
    return f"<{lanes} x {scalar}>" if lanes else scalar


def float_bits(value: float, width: int) -> int:
    """The bits of a number as a float of 16, 32 or 64 bits."""
    form = {16: "<e", 32: "<f", 64: "<d"}[width]
    return int.from_bytes(struct.pack(form, value), "little")


def constant_text(type: str, bits: int) -> str:
    """A constant of those bits, in LLVM's spelling."""
    width = int(type[1:])
    bits &= (1 << width) - 1
    if type[0] != "f":
        return str(bits) if width > 1 else ("true" if bits else "false")
    if width == 16:
        return f"0xH{bits:04X}"
    if width == 32:
        (number,) = struct.unpack("<f", bits.to_bytes(4, "little"))
        wide = float_bits(number, 64)
        if number != number:  # keep a NaN's payload, which Python's conversion may quieten
            wide = (bits >> 31) << 63 | 0x7FF << 52 | (bits & 0x7FFFFF) << 29
        return f"0x{wide:016X}"
    return f"0x{bits:016X}"


class Build:
    """The text of a function under construction, for waves of `wave_size` lanes."""

    wave_size: int

    def __init__(self, wave_size: int = 32) -> None:
        self.wave_size = wave_size
        self.lines: list[str] = []
        self.declarations: set[str] = set()
        self.locals: set[str] = set()
        """Stack slots that it needs besides the registers, as lines of IR."""
        self.prefix = "%t"
        self._count = 0

    def name(self) -> str:
        """A fresh SSA name."""
        self._count += 1
        return f"{self.prefix}{self._count}"

    def emit(self, text: str) -> str:
        """Adds an instruction with a result; returns the result's name."""
        name = self.name()
        self.lines.append(f"  {name} = {text}")
        return name

    def do(self, text: str) -> None:
        """Adds an instruction without a result."""
        self.lines.append(f"  {text}")

    def value(self, text: str, type: str, lanes: bool) -> Value:
        """The result of an instruction, as a Value."""
        return Value(self, self.emit(text), type, lanes)

    def spell(self, type: str, lanes: bool = True) -> str:
        """A type in LLVM's spelling: of one value for each lane, or of a scalar."""
        return llvm_type(type, self.wave_size if lanes else 0)

    def each_lane(self, type: str, values: Iterable[int]) -> Value:
        """A constant whose bits differ from lane to lane."""
        scalar = llvm_type(type)
        parts = ", ".join(f"{scalar} {constant_text(type, bits)}" for bits in values)
        return Value(self, f"<{parts}>", type, True)

    def constant(self, type: str, bits: int, lanes: bool) -> Value:
        """A constant given by its bits."""
        text = constant_text(type, bits)
        if lanes:
            text = f"splat ({llvm_type(type)} {text})"
        return Value(self, text, type, lanes)

    def number(self, type: str, number: float, lanes: bool) -> Value:
        """A constant given by its number."""
        width = int(type[1:])
        bits = float_bits(number, width) if type[0] == "f" else int(number)
        return self.constant(type, bits, lanes)

    def call(self, function: str, type: str, lanes: bool, *arguments: Value | str) -> Value:
        """Calls an LLVM intrinsic; `function` has `$` where its overloaded type stands."""
        width = type[0].replace("u", "i").replace("b", "i").replace("m", "i") + type[1:]
        name = function.replace("$", f"v{self.wave_size}{width}" if lanes else width)
        given = [a if isinstance(a, str) else f"{a.llvm} {a.text}" for a in arguments]
        result = self.spell(type, lanes)
        kinds = ", ".join(g.rsplit(" ", 1)[0] if isinstance(a, str) else a.llvm
                          for g, a in zip(given, arguments, strict=True))
        self.declarations.add(f"declare {result} @{name}({kinds})")
        return self.value(f"call {result} @{name}({', '.join(given)})", type, lanes)


class Value:
    """A scalar or a value for each lane in the function that `build` makes."""

    __slots__ = ("build", "lanes", "text", "type")

    def __init__(self, build: Build, text: str, type: str, lanes: bool) -> None:
        self.build, self.text, self.type, self.lanes = build, text, type, lanes

    @property
    def llvm(self) -> str:
        """Its type in LLVM's spelling."""
        return self.build.spell(self.type, self.lanes)

    @property
    def width(self) -> int:
        """Bits."""
        return int(self.type[1:])

    @property
    def is_float(self) -> bool:
        """Whether arithmetic on it is floating-point."""
        return self.type[0] == "f"

    def like(self, number: float) -> Value:
        """A constant of the same type."""
        return self.build.number(self.type, number, self.lanes)

    def _other(self, other: Value | float) -> Value:
        return other if isinstance(other, Value) else self.like(other)

    def _binary(self, operation: str, other: Value | float) -> Value:
        right = self._other(other)
        return self.build.value(
            f"{operation} {self.llvm} {self.text}, {right.text}", self.type, self.lanes
        )

    def __add__(self, other: Value | float) -> Value:
        return self._binary("fadd" if self.is_float else "add", other)

    def __sub__(self, other: Value | float) -> Value:
        return self._binary("fsub" if self.is_float else "sub", other)

    def __rsub__(self, other: float) -> Value:
        return self.like(other) - self

    def __mul__(self, other: Value | float) -> Value:
        return self._binary("fmul" if self.is_float else "mul", other)

    def __truediv__(self, other: Value | float) -> Value:
        return self._binary("fdiv", other)

    def __rtruediv__(self, other: float) -> Value:
        return self.like(other) / self

    def __and__(self, other: Value | float) -> Value:
        return self._binary("and", other)

    def __or__(self, other: Value | float) -> Value:
        return self._binary("or", other)

    def __xor__(self, other: Value | float) -> Value:
        return self._binary("xor", other)

    def __invert__(self) -> Value:
        return self ^ -1

    def __lshift__(self, other: Value | float) -> Value:
        """Amounts wrap at the width, as GPUs have it."""
        return self._binary("shl", self._amount(other))

    def __rshift__(self, other: Value | float) -> Value:
        return self._binary("ashr" if self.type[0] == "i" else "lshr", self._amount(other))

    def _amount(self, other: Value | float) -> Value:
        if not isinstance(other, Value):
            return self.like(int(other) & (self.width - 1))
        return other.to(self.type) & (self.width - 1)

    def __neg__(self) -> Value:
        if self.is_float:
            return self.build.value(f"fneg {self.llvm} {self.text}", self.type, self.lanes)
        return 0 - self

    def _compare(self, predicate: str, other: Value | float) -> Value:
        right = self._other(other)
        if self.is_float:
            operation = f"fcmp o{predicate}"
        elif predicate in ("eq", "ne"):
            operation = f"icmp {predicate}"
        else:
            operation = f"icmp {'s' if self.type[0] == 'i' else 'u'}{predicate}"
        return self.build.value(
            f"{operation} {self.llvm} {self.text}, {right.text}", "m1", self.lanes
        )

    def __lt__(self, other: Value | float) -> Value:
        return self._compare("lt", other)

    def __le__(self, other: Value | float) -> Value:
        return self._compare("le", other)

    def __gt__(self, other: Value | float) -> Value:
        return self._compare("gt", other)

    def __ge__(self, other: Value | float) -> Value:
        return self._compare("ge", other)

    def equals(self, other: Value | float) -> Value:
        """Lane by lane; ordered for floats."""
        return self._compare("eq", other)

    def differs(self, other: Value | float) -> Value:
        """Lane by lane; floats differ unless they are ordered and equal."""
        if self.is_float:
            return self.fcmp("une", self._other(other))
        return self._compare("ne", other)

    def fcmp(self, predicate: str, other: Value) -> Value:
        """LLVM's comparison of that name."""
        return self.build.value(
            f"fcmp {predicate} {self.llvm} {self.text}, {other.text}", "m1", self.lanes
        )

    def select(self, yes: Value | float, no: Value) -> Value:
        """`yes` where this truth value holds, else `no`."""
        first = yes if isinstance(yes, Value) else no.like(yes)
        return self.build.value(
            f"select {self.llvm} {self.text}, {first.llvm} {first.text}, {no.llvm} {no.text}",
            no.type, no.lanes,
        )

    def as_type(self, type: str) -> Value:
        """The same bits, called another type of the same width."""
        if type == self.type:
            return self
        if llvm_type(type) == llvm_type(self.type):
            return Value(self.build, self.text, type, self.lanes)
        target = self.build.spell(type, self.lanes)
        return self.build.value(
            f"bitcast {self.llvm} {self.text} to {target}", type, self.lanes
        )

    def to(self, type: str) -> Value:
        """The same number in another type; integers are cut or extended by their own sign."""
        if (self.type, type) == ("f64", "f16"):
            return self._half_of_double()
        wide, target = int(type[1:]), self.build.spell(type, self.lanes)
        if self.is_float and type[0] == "f":
            operation = "fpext" if wide > self.width else "fptrunc"
        elif self.is_float:
            name = f"llvm.fpto{'s' if type[0] == 'i' else 'u'}i.sat"
            suffix = f"v{self.build.wave_size}" if self.lanes else ""
            return self.build.call(
                f"{name}.{suffix}i{wide}.{suffix}f{self.width}", type, self.lanes, self
            )
        elif type[0] == "f":
            operation = "sitofp" if self.type[0] == "i" else "uitofp"
        elif wide == self.width:
            return Value(self.build, self.text, type, self.lanes)
        elif wide < self.width:
            operation = "trunc"
        else:
            operation = "sext" if self.type[0] == "i" else "zext"
        if wide == self.width and self.is_float:
            return self
        return self.build.value(
            f"{operation} {self.llvm} {self.text} to {target}", type, self.lanes
        )

    def _half_of_double(self) -> Value:
        """Rounded once, although by way of float32: hosts would call a library.

        What float32 cannot hold is kept as an odd last bit, so that only the half rounds.
        """
        bits, lost = self.as_type("u64"), (1 << 29) - 1
        odd = (bits & lost).differs(0).select(bits | 1 << 29, bits)
        return (odd & ~lost & 0xFFFFFFFFFFFFFFFF).as_type("f64").to("f32").to("f16")

    def intrinsic(self, name: str, *others: Value | str) -> Value:
        """`llvm.NAME` of this type, applied to this value and others."""
        return self.build.call(f"llvm.{name}.$", self.type, self.lanes, self, *others)

    def min(self, other: Value | float) -> Value:
        """The smaller, −0 below +0; where one float is NaN, the other."""
        return self._extreme("min", self._other(other))

    def max(self, other: Value | float) -> Value:
        """The larger, −0 below +0; where one float is NaN, the other."""
        return self._extreme("max", self._other(other))

    def _extreme(self, which: str, other: Value) -> Value:
        if self.type == "f16":  # hosts without half arithmetic would call a library
            ours, theirs = self._order(), other._order()
            better = ours < theirs if which == "min" else ours > theirs
            choice = better & self.fcmp("ord", self) | other.fcmp("uno", other)
            return choice.select(self, other)
        if self.is_float:
            return self.intrinsic(f"{which}imumnum", other)
        return self.intrinsic(("s" if self.type[0] == "i" else "u") + which, other)

    def _order(self) -> Value:
        """An integer that orders a half as its number does, −0 below +0."""
        bits = self.as_type("i16")
        return bits ^ ((bits >> 15) & 0x7FFF)

    def minimum(self, other: Value) -> Value:
        """The smaller; NaN where one float is, −0 below +0 (IEEE 754-2019)."""
        return self._strict("minimum", other)

    def maximum(self, other: Value) -> Value:
        """The larger; NaN where one float is, −0 below +0 (IEEE 754-2019)."""
        return self._strict("maximum", other)

    def _strict(self, which: str, other: Value) -> Value:
        if self.width == 16:
            return self.to("f32").intrinsic(which, other.to("f32")).to("f16")
        return self.intrinsic(which, other)

    def differs_itself(self, other: Value) -> Value:
        """False in every lane."""
        return self.build.constant("m1", 0, self.lanes)

    def equals_itself(self, other: Value) -> Value:
        """True in every lane."""
        return self.build.constant("m1", 1, self.lanes)

    def med(self, second: Value, third: Value) -> Value:
        """The one in the middle; the smallest where one float is NaN."""
        if not self.is_float:
            return self.min(second).max(self.max(second).min(third))
        most = self.max(second).max(third)
        middle = most.equals(second).select(self.max(third), self.max(second))
        middle = most.equals(self).select(second.max(third), middle)
        unordered = self.fcmp("uno", second) | third.fcmp("uno", third)
        return unordered.select(self.min(second).min(third), middle)

    def abs(self) -> Value:
        """Without its sign."""
        if self.is_float:
            return self.intrinsic("fabs")
        return self.intrinsic("abs", "i1 false")

    def fma(self, factor: Value, term: Value) -> Value:
        """self × factor + term, rounded once."""
        if self.type == "f16":
            # In float64 the sum is exact wherever a half could tell.
            return self.to("f64").fma(factor.to("f64"), term.to("f64")).to("f16")
        return self.intrinsic("fma", factor, term)

    def high_half(self, other: Value) -> Value:
        """The upper half of the double-width product."""
        wide = f"{self.type[0]}{2 * self.width}"
        return ((self.to(wide) * other.to(wide)) >> self.width).to(self.type)

    def polynomial(self, coefficients: Sequence[float]) -> Value:
        """Horner's rule; the highest coefficient first."""
        total = self.like(coefficients[0])
        for coefficient in coefficients[1:]:
            total = total.fma(self, self.like(coefficient))
        return total
