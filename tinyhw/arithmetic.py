"""Arithmetic, comparisons, bits, choice and rounding, one element at a time.

Operands broadcast, and are promoted to the narrowest type that holds both; a Python scalar is
weak: it takes the tensor's type unless it is of a higher kind (float over int over bool).
"""

from __future__ import annotations

import math
from typing import Self, TypeVar

from compiler.dtype import ConstType, DType, dtypes, least_upper_dtype
from compiler.ir import Node, Op
from tinyhw.core import also_named, float_dtype, is_scalar, python_dtype, to_extent
from tinyhw.errors import DtypeError, ShapeError
from tinyhw.layout import Layout
from tinyhw.movement import broadcast_shape
from tinyhw.variable import Variable

T = TypeVar("T", bound="Arithmetic")


class Arithmetic(Layout):
    """What operators stand for, choice, and rounding."""

    __slots__ = ()

    # ---- operands ----
    def _operand(self, other: Self | ConstType) -> Self:
        """`other` as a tensor; a scalar gets the type that it has beside this one."""
        if isinstance(other, Arithmetic):
            return other
        if isinstance(other, Node | Variable):
            extent = to_extent(other)
            if isinstance(extent, Node):
                return self._wrap(extent.cast(weak_dtype(1, self.dtype)), self._device)
            other = extent
        if not is_scalar(other):
            raise DtypeError(f"A tensor meets {other!r}, which is neither a tensor nor a number.")
        return self._constant(other, weak_dtype(other, self.dtype))

    def _operands(self, other: Self | ConstType, reverse: bool = False) -> tuple[Self, Self]:
        """This tensor and the other, of one dtype and shape; scalar constants stay scalars."""
        a, b = self, self._operand(other)
        if a.dtype is not b.dtype:
            common = least_upper_dtype(a.dtype, b.dtype)
            a, b = a.cast(common), b.cast(common)
        if a.shape != b.shape and a._node.op is not Op.CONST and b._node.op is not Op.CONST:
            shape = broadcast_shape(a.shape, b.shape)
            a, b = a._broadcast_to(shape), b._broadcast_to(shape)
        return (b, a) if reverse else (a, b)

    def _broadcasted(self, *others: Self) -> list[Self]:
        """This tensor and others in one shape; scalar constants stay scalars."""
        tensors = (self, *others)
        shape = broadcast_shape(*(t.shape for t in tensors))
        return [t if t._node.op is Op.CONST else t._broadcast_to(shape) for t in tensors]

    # ---- arithmetic ----
    def add(self, x: Self | ConstType, reverse: bool = False) -> Self:
        """self + x; for bool the logical or."""
        a, b = self._operands(x, reverse)
        return a._alu(Op.OR if a.dtype is dtypes.bool else Op.ADD, b)

    def sub(self, x: Self | ConstType, reverse: bool = False) -> Self:
        """self - x."""
        a, b = self._operands(x, reverse)
        return a._alu(Op.ADD, b.neg())

    def mul(self, x: Self | ConstType, reverse: bool = False) -> Self:
        """self * x; for bool the logical and."""
        a, b = self._operands(x, reverse)
        return a._alu(Op.AND if a.dtype is dtypes.bool else Op.MUL, b)

    def neg(self) -> Self:
        """-self."""
        if self.dtype is dtypes.bool:
            raise DtypeError("bool has no negative and no difference; use ~ or logical_not().")
        if self._node.op is Op.CONST:
            return self._constant(-self._node.arg)
        return self._alu(Op.MUL, self._constant(-1))

    def div(
        self, x: Self | ConstType, reverse: bool = False, rounding_mode: str | None = None
    ) -> Self:
        """self / x as a float, or rounded: rounding_mode "floor" or "trunc"."""
        if rounding_mode == "floor":
            return self.idiv(x, reverse)
        if rounding_mode is None and is_scalar(x) and not dtypes.is_float(self.dtype):
            return self.cast(dtypes.default_float).div(x, reverse)  # -1 is no uint8
        a, b = self._operands(x, reverse)
        if rounding_mode == "trunc" and not dtypes.is_float(a.dtype):
            return _safe_integer_division(a, b)[0]
        wide = float_dtype(a.dtype)
        quotient = a.cast(wide)._alu(Op.DIV, b.cast(wide))
        if rounding_mode is None:
            return quotient
        if rounding_mode != "trunc":
            raise DtypeError(f"rounding_mode is 'floor', 'trunc' or None, not {rounding_mode!r}.")
        return quotient.trunc()

    def idiv(self, x: Self | ConstType, reverse: bool = False) -> Self:
        """self // x, rounded towards minus infinity; an integer divided by zero is 0."""
        a, b = self._operands(x, reverse)
        if dtypes.is_float(a.dtype):
            return a._alu(Op.DIV, b).floor()
        quotient, remainder = _safe_integer_division(a, b)
        if dtypes.is_unsigned(a.dtype):
            return quotient
        return quotient - _signs_differ(remainder, b).cast(a.dtype)

    def mod(self, x: Self | ConstType, reverse: bool = False) -> Self:
        """self % x with the sign of x; an integer modulo zero is 0."""
        a, b = self._operands(x, reverse)
        if dtypes.is_float(a.dtype):
            remainder = a.fmod(b)
        else:
            remainder = _safe_integer_division(a, b)[1]
        if dtypes.is_unsigned(a.dtype):
            return remainder
        return _signs_differ(remainder, b).where(remainder + b, remainder)

    def fmod(self, x: Self | ConstType) -> Self:
        """The remainder of self / x with the sign of self."""
        a, b = self._operands(x)
        if dtypes.is_float(a.dtype):  # a quotient of 0 times an infinite x would be NaN
            return (b.isinf() & a.isfinite()).where(a, a - a._alu(Op.DIV, b).trunc() * b)
        return _safe_integer_division(a, b)[1]

    def reciprocal(self) -> Self:
        """1 / self."""
        return self.div(1, reverse=True)

    def square(self) -> Self:
        """self * self."""
        return self * self

    # ---- comparison ----
    def _compare(self, op: Op, x: Self | ConstType, reverse: bool = False) -> Self:
        a, b = self._operands(x, reverse)
        if op is Op.CMPLT and a.dtype is dtypes.bool:
            a, b = a.cast(dtypes.uint8), b.cast(dtypes.uint8)
        result = a._alu(op, b)
        result._requires_grad = None
        return result

    def eq(self, x: Self | ConstType) -> Self:
        """Whether self == x."""
        return self._compare(Op.CMPEQ, x)

    def ne(self, x: Self | ConstType) -> Self:
        """Whether self != x; NaN differs from everything."""
        return self._compare(Op.CMPNE, x)

    def __lt__(self, x: Self | ConstType) -> Self:
        return self._compare(Op.CMPLT, x)

    def __gt__(self, x: Self | ConstType) -> Self:
        return self._compare(Op.CMPLT, x, reverse=True)

    def __le__(self, x: Self | ConstType) -> Self:
        return (self < x) | self.eq(x)

    def __ge__(self, x: Self | ConstType) -> Self:
        return (self > x) | self.eq(x)

    def isnan(self) -> Self:
        """Where self is not a number."""
        return self.ne(self)

    def isinf(self, detect_positive: bool = True, detect_negative: bool = True) -> Self:
        """Where self is infinite, of either sign or of those asked for."""
        if not self.dtype.has_infinity:
            return self.const_like(False, dtypes.bool)
        up, down = self.eq(math.inf), self.eq(-math.inf)
        if detect_positive and detect_negative:
            return up | down
        return up if detect_positive else down if detect_negative else up & down

    def isfinite(self) -> Self:
        """Where self is neither infinite nor NaN."""
        return (self.isinf() | self.isnan()).logical_not()

    def isclose(
        self, other: Self, rtol: float = 1e-05, atol: float = 1e-08, equal_nan: bool = False
    ) -> Self:
        """Where |self - other| <= atol + rtol*|other|."""
        near = (self - other).abs() <= other.abs() * rtol + atol
        close = (self.isfinite() & other.isfinite() & near) | self.eq(other)
        return close | (self.isnan() & other.isnan()) if equal_nan else close

    # ---- logic and bits ----
    def _bits(self, op: Op, x: Self | ConstType, reverse: bool = False) -> Self:
        a, b = self._operands(x, reverse)
        if dtypes.is_float(a.dtype):
            raise DtypeError(f"{op.name} works on bool and integers, not on {a.dtype}.")
        return a._alu(op, b)

    def bitwise_and(self, x: Self | ConstType, reverse: bool = False) -> Self:
        """self & x."""
        return self._bits(Op.AND, x, reverse)

    def bitwise_or(self, x: Self | ConstType, reverse: bool = False) -> Self:
        """self | x."""
        return self._bits(Op.OR, x, reverse)

    def bitwise_xor(self, x: Self | ConstType, reverse: bool = False) -> Self:
        """self ^ x."""
        return self._bits(Op.XOR, x, reverse)

    def bitwise_not(self) -> Self:
        """~self."""
        if dtypes.is_float(self.dtype):
            raise DtypeError(f"bitwise_not works on bool and integers, not on {self.dtype}.")
        ones: ConstType = True if self.dtype is dtypes.bool else -1
        return self._alu(Op.XOR, self._constant(ones))

    def logical_not(self) -> Self:
        """Where self is zero."""
        return self.bitwise_not() if self.dtype is dtypes.bool else self.eq(0)

    def logical_and(self, x: Self | ConstType) -> Self:
        """Where self and x are both not zero."""
        return self.cast(dtypes.bool) & self._operand(x).cast(dtypes.bool)

    def logical_or(self, x: Self | ConstType) -> Self:
        """Where self or x is not zero."""
        return self.cast(dtypes.bool) | self._operand(x).cast(dtypes.bool)

    def lshift(self, x: Self | ConstType, reverse: bool = False) -> Self:
        """self << x; 0 from the width on."""
        return self._shift(Op.SHL, x, reverse)

    def rshift(self, x: Self | ConstType, reverse: bool = False) -> Self:
        """self >> x, the sign kept; from the width on only the sign is left, or 0 if unsigned."""
        return self._shift(Op.SHR, x, reverse)

    def _shift(self, op: Op, x: Self | ConstType, reverse: bool) -> Self:
        if is_scalar(x) and not reverse and x < 0:
            raise ShapeError(f"A shift is by 0 bits or more, not by {x}.")
        a, b = self._operands(x, reverse)
        if not dtypes.is_int(a.dtype):
            raise DtypeError(f"{op.name} works on integers, not on {a.dtype}.")
        last = a.dtype.bits - 1
        sign = op is Op.SHR and not dtypes.is_unsigned(a.dtype)  # what is left beyond the width
        if b._node.op is Op.CONST:
            if 0 <= b._node.arg <= last:
                return a._alu(op, b)
            return a._alu(op, b.const_like(last)) if sign else a.const_like(0)
        within = (b >= 0) & (b <= last)
        shifted = a._alu(op, within.where(b, last))
        return shifted if sign else within.where(shifted, 0)

    # ---- choice ----
    def where(self, x: Self | ConstType, y: Self | ConstType) -> Self:
        """x where self is true (not zero), else y."""
        if isinstance(x, Arithmetic):
            a, b = x, x._operand(y)
        elif isinstance(y, Arithmetic):
            a, b = y._operand(x), y
        elif is_scalar(x) and is_scalar(y):
            dtype = least_upper_dtype(python_dtype(x), python_dtype(y))
            a, b = self._constant(x, dtype), self._constant(y, dtype)
        else:
            raise DtypeError(f"where chooses between tensors or numbers, not {x!r} and {y!r}.")
        common = least_upper_dtype(a.dtype, b.dtype)
        shape = broadcast_shape(self.shape, a.shape, b.shape)
        condition, a, b = self.cast(dtypes.bool)._broadcasted(a.cast(common), b.cast(common))
        chosen = condition._alu(Op.WHERE, a, b)
        return chosen._broadcast_to(shape)

    def masked_fill(self, mask: Self, value: Self | ConstType) -> Self:
        """`value` where `mask` is true, else self."""
        return mask.where(value, self)

    def maximum(self, x: Self | ConstType) -> Self:
        """The greater of self and x; NaN if either is."""
        a, b = self._operands(x)
        return a._alu(Op.OR if a.dtype is dtypes.bool else Op.MAX, b)

    def minimum(self, x: Self | ConstType) -> Self:
        """The lesser of self and x; NaN if either is."""
        a, b = self._operands(x)
        if a.dtype is dtypes.bool:
            return a._alu(Op.AND, b)
        return a.descending()._alu(Op.MAX, b.descending()).descending()

    def descending(self) -> Self:
        """The values in reverse order: -x, or ~x for integers, where every x has one."""
        return self.neg() if dtypes.is_float(self.dtype) else self.bitwise_not()

    @also_named(min="min_", max="max_")
    def clamp(
        self, min_: Self | ConstType | None = None, max_: Self | ConstType | None = None
    ) -> Self:
        """self within [min_, max_]; the gradient passes where it is not cut."""
        if min_ is None and max_ is None:
            raise ShapeError("clamp needs min_ or max_.")
        x = self if min_ is None else (self < min_).where(min_, self)
        return x if max_ is None else (x > max_).where(max_, x)

    @also_named(min="min_", max="max_")
    def clip(
        self, min_: Self | ConstType | None = None, max_: Self | ConstType | None = None
    ) -> Self:
        """`clamp`."""
        return self.clamp(min_, max_)

    def lerp(self, end: Self, weight: Self | float) -> Self:
        """From self at weight 0 to `end` at weight 1."""
        return self + (end - self) * weight

    def abs(self) -> Self:
        """The absolute value."""
        if self.dtype is dtypes.bool or dtypes.is_unsigned(self.dtype):
            return self
        return self.maximum(self.neg())

    def sign(self) -> Self:
        """-1, 0 or 1; no gradient."""
        if self.dtype is dtypes.bool:
            return self
        x = self.detach()
        return (x > 0).cast(self.dtype) - (x < 0).cast(self.dtype)

    def copysign(self, other: Self | ConstType) -> Self:
        """The absolute value of self with the sign of other."""
        a, b = self._operands(other)
        negative = (b < 0) | (b.eq(0) & (b.detach().reciprocal() < 0))
        return negative.where(-a.abs(), a.abs())

    # ---- rounding ----
    def trunc(self) -> Self:
        """Rounded towards zero."""
        return self._alu(Op.TRUNC) if dtypes.is_float(self.dtype) else self

    def floor(self) -> Self:
        """Rounded down."""
        whole = self.trunc()
        return (self < whole).where(whole - 1, whole) if whole is not self else self

    def ceil(self) -> Self:
        """Rounded up."""
        whole = self.trunc()
        return (self > whole).where(whole + 1, whole) if whole is not self else self

    def round(self, decimals: int = 0) -> Self:
        """Rounded to the nearest whole number, halves to the even one; or to so many decimals."""
        if not dtypes.is_float(self.dtype):
            return self
        if decimals:
            scale = 10.0 ** abs(decimals)
            if decimals > 0:
                return (self * scale).round() / scale
            return (self / scale).round() * scale
        below = self.floor()
        rest = self - below
        odd = (below * 0.5).trunc().ne(below * 0.5)
        return ((rest > 0.5) | (rest.eq(0.5) & odd)).where(below + 1, below)

    def const_like(self, b: ConstType, dtype: DType | None = None) -> Self:
        """The number b everywhere, in the shape of self."""
        return self._constant(b, dtype)._broadcast_to(self.shape)

    # ---- operators ----
    def __add__(self, x: Self | ConstType) -> Self:
        return self.add(x)

    def __radd__(self, x: ConstType) -> Self:
        return self.add(x, True)

    def __sub__(self, x: Self | ConstType) -> Self:
        return self.sub(x)

    def __rsub__(self, x: ConstType) -> Self:
        return self.sub(x, True)

    def __mul__(self, x: Self | ConstType) -> Self:
        return self.mul(x)

    def __rmul__(self, x: ConstType) -> Self:
        return self.mul(x, True)

    def __truediv__(self, x: Self | ConstType) -> Self:
        return self.div(x)

    def __rtruediv__(self, x: ConstType) -> Self:
        return self.div(x, True)

    def __floordiv__(self, x: Self | ConstType) -> Self:
        return self.idiv(x)

    def __rfloordiv__(self, x: ConstType) -> Self:
        return self.idiv(x, True)

    def __mod__(self, x: Self | ConstType) -> Self:
        return self.mod(x)

    def __rmod__(self, x: ConstType) -> Self:
        return self.mod(x, True)

    def __and__(self, x: Self | ConstType) -> Self:
        return self.bitwise_and(x)

    def __rand__(self, x: ConstType) -> Self:
        return self.bitwise_and(x, True)

    def __or__(self, x: Self | ConstType) -> Self:
        return self.bitwise_or(x)

    def __ror__(self, x: ConstType) -> Self:
        return self.bitwise_or(x, True)

    def __xor__(self, x: Self | ConstType) -> Self:
        return self.bitwise_xor(x)

    def __rxor__(self, x: ConstType) -> Self:
        return self.bitwise_xor(x, True)

    def __lshift__(self, x: Self | ConstType) -> Self:
        return self.lshift(x)

    def __rlshift__(self, x: ConstType) -> Self:
        return self.lshift(x, True)

    def __rshift__(self, x: Self | ConstType) -> Self:
        return self.rshift(x)

    def __rrshift__(self, x: ConstType) -> Self:
        return self.rshift(x, True)

    def __neg__(self) -> Self:
        return self.neg()

    def __pos__(self) -> Self:
        return self

    def __abs__(self) -> Self:
        return self.abs()

    def __invert__(self) -> Self:
        return self.bitwise_not()

    def __eq__(self, x: object) -> Self:  # type: ignore[override]
        return self.eq(x)  # type: ignore[arg-type]

    def __ne__(self, x: object) -> Self:  # type: ignore[override]
        return self.ne(x)  # type: ignore[arg-type]

    __hash__ = object.__hash__


def weak_dtype(value: ConstType, beside: DType) -> DType:
    """The type that a Python scalar has beside a tensor of type `beside`."""
    given = python_dtype(value)
    kinds = "biuf"
    stronger = kinds.index(given.kind) > kinds.index(beside.kind)
    return given if stronger and not (beside.kind == "u" and given.kind == "i") else beside


def _safe_integer_division(a: T, b: T) -> tuple[T, T]:
    """Quotient towards zero and its remainder, defined for divisors that would trap.

    A processor traps on x / 0 and on the least integer / -1. Here x / 0 and x % 0 are 0, as in
    NumPy, and x / -1 wraps.
    """
    if a.dtype is dtypes.bool:
        raise DtypeError("bool has no integer division; cast to an integer first.")
    unsigned = dtypes.is_unsigned(a.dtype)
    if b._node.op is Op.CONST:
        if b._node.arg == 0:
            return a.const_like(0), a.const_like(0)
        if b._node.arg == -1:
            return -a, a.const_like(0)
        return a._alu(Op.IDIV, b), a._alu(Op.MOD, b)
    zero = b.eq(0)
    unsafe = zero if unsigned else zero | b.eq(-1)
    a, divisor = a._broadcasted(unsafe.where(1, b))
    quotient, remainder = (a._alu(op, divisor) for op in (Op.IDIV, Op.MOD))
    if not unsigned:
        quotient = b.eq(-1).where(-a, quotient)
    return zero.where(0, quotient), unsafe.where(0, remainder)


def _signs_differ(remainder: T, divisor: T) -> T:
    """Where a truncated remainder is not zero and has not the divisor's sign."""
    return remainder.ne(0) & (remainder < 0).ne(divisor < 0)
