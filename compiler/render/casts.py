"""Conversions and divisions that processors lack, spelled out in operations that all have.

Every function takes a node of any number of lanes and returns one of as many. bfloat16, the
8-bit floats and, where the processor cannot convert it, float16 are handled as their bits.
"""

from __future__ import annotations

import math

from compiler.dtype import FORMATS, DType, dtypes, float_bits
from compiler.expressions import binary, bitcast, cast, choose, compare, constant_like
from compiler.ir import Node, Op


def convert(x: Node, dtype: DType, native_half: bool) -> Node:
    """CAST(x) to `dtype` in steps that every target has.

    Left over are casts between integers, float32 and float64, from bool to those, from floats
    to int32, int64 and uint64, and with `native_half` between float16 and float32.
    """
    source, dtype = x.dtype.scalar, dtype.scalar
    if source is dtype:
        return x
    if dtype is dtypes.bool:
        if source in dtypes.narrow_floats:
            bits = dtypes.uint8 if source.bits == 8 else dtypes.uint16
            x = binary(Op.AND, bitcast(x, bits), (1 << (source.bits - 1)) - 1)
        return compare(Op.CMPNE, x, 0)
    if dtype in dtypes.narrow_floats:
        return _to_narrow(x, dtype, native_half)
    if source in dtypes.narrow_floats:
        return convert(_to_float(x, native_half), dtype, native_half)
    if source.kind == "f" and dtype.kind in "iu" and dtype is not dtypes.uint64:
        # By way of a wider integer, whose low bits are what NumPy and PyTorch give on x86.
        return cast(cast(x, dtypes.int32 if dtype.bits < 32 else _signed_for(dtype)), dtype)
    return cast(x, dtype)


def _signed_for(dtype: DType) -> DType:
    return dtypes.int64 if dtype.bits == 64 or dtype is dtypes.uint32 else dtypes.int32


def _to_narrow(x: Node, dtype: DType, native_half: bool) -> Node:
    source = x.dtype.scalar
    if source is dtypes.bool:
        return choose(x, constant_like(x, 1.0, dtype), constant_like(x, 0.0, dtype))
    if source in dtypes.narrow_floats:
        x = _to_float(x, native_half)
    elif source is dtypes.float64 and dtype.bits == 16:
        x = _round_to_odd(x)
    else:
        x = cast(x, dtypes.float32)
    if dtype.bits == 8:
        return _float_to_float8(x, dtype)
    if dtype is dtypes.bfloat16:
        return _float_to_bfloat16(x)
    return cast(x, dtype) if native_half else _float_to_float16(x)


def _to_float(x: Node, native_half: bool) -> Node:
    """A narrow float to float32: exact."""
    return (_float8_to_float if x.dtype.bits == 8 else _half_to_float)(x, native_half)


def _float8_to_float(x: Node, native_half: bool) -> Node:
    """An 8-bit float to float32: they are float16's upper bits, but for the exponent's bias."""
    bits = cast(bitcast(x, dtypes.uint8), dtypes.uint16)
    if x.dtype.scalar is dtypes.float8_e5m2:
        return _half_to_float(bitcast(binary(Op.SHL, bits, 8), dtypes.float16), native_half)
    magnitude = binary(Op.AND, bits, 0x7F)
    sign = binary(Op.SHL, binary(Op.AND, bits, 0x80), 8)
    half = binary(Op.OR, binary(Op.SHL, magnitude, 7), sign)
    value = binary(Op.MUL, _half_to_float(bitcast(half, dtypes.float16), native_half), 2.0**8)
    return choose(compare(Op.CMPEQ, magnitude, 0x7F), constant_like(value, math.nan), value)


def _float_to_float8(x: Node, dtype: DType) -> Node:
    """float32 to an 8-bit float, to nearest even, a NaN with its sign, in integer operations."""
    exponent_bits, kept = FORMATS[dtype.name]
    bias, dropped = (1 << (exponent_bits - 1)) - 1, 23 - kept
    largest = float_bits(dtype.max, dtype)  # where values end up that are too large
    bits = bitcast(x, dtypes.uint32)
    magnitude = binary(Op.AND, bits, 0x7FFFFFFF)
    odd = binary(Op.AND, binary(Op.SHR, magnitude, dropped), 1)
    rebias = (1 << 32) - ((127 - bias) << 23) + (1 << (dropped - 1)) - 1
    normal = binary(Op.SHR, binary(Op.ADD, binary(Op.ADD, magnitude, rebias), odd), dropped)
    # A number whose last bit weighs what the least subnormal does: adding it rounds to those.
    unit = 2.0 ** (1 - bias - kept + 23)
    unit_bits = (127 + 1 - bias - kept + 23) << 23
    shifted = bitcast(binary(Op.ADD, bitcast(magnitude, dtypes.float32), unit), dtypes.uint32)
    subnormal = binary(Op.ADD, shifted, (1 << 32) - unit_bits)
    finite = choose(compare(Op.CMPLT, magnitude, (128 - bias) << 23), subnormal, normal)
    fits = compare(Op.CMPLT, finite, largest)
    number = choose(fits, finite, constant_like(bits, largest))
    result = choose(compare(Op.CMPNE, x, x), constant_like(bits, 0x7F), number)
    sign = binary(Op.AND, binary(Op.SHR, bits, 24), 0x80)
    return bitcast(cast(binary(Op.OR, result, sign), dtypes.uint8), dtype)


def _half_to_float(x: Node, native_half: bool) -> Node:
    """float16 or bfloat16 to float32: exact."""
    if x.dtype.scalar is dtypes.float16 and native_half:
        return cast(x, dtypes.float32)
    bits = cast(bitcast(x, dtypes.uint16), dtypes.uint32)
    if x.dtype.scalar is dtypes.bfloat16:
        return bitcast(binary(Op.SHL, bits, 16), dtypes.float32)
    magnitude = binary(Op.SHL, binary(Op.AND, bits, 0x7FFF), 13)
    scaled = binary(Op.MUL, bitcast(magnitude, dtypes.float32), 2.0**112)  # exponent bias 15 -> 127
    special = compare(Op.CMPLT, constant_like(bits, 0x0F7FFFFF), magnitude)
    finite_or_not = choose(
        special, binary(Op.OR, magnitude, 0x7F800000), bitcast(scaled, dtypes.uint32)
    )
    sign = binary(Op.SHL, binary(Op.AND, bits, 0x8000), 16)
    return bitcast(binary(Op.OR, finite_or_not, sign), dtypes.float32)


def _float_to_bfloat16(x: Node) -> Node:
    """float32 to bfloat16, to nearest even; a NaN stays one."""
    bits = bitcast(x, dtypes.uint32)
    odd = binary(Op.AND, binary(Op.SHR, bits, 16), 1)
    rounded = binary(Op.SHR, binary(Op.ADD, binary(Op.ADD, bits, odd), 0x7FFF), 16)
    quiet = binary(Op.OR, binary(Op.SHR, bits, 16), 0x40)
    return bitcast(
        cast(choose(compare(Op.CMPNE, x, x), quiet, rounded), dtypes.uint16), dtypes.bfloat16
    )


def _float_to_float16(x: Node) -> Node:
    """float32 to float16, to nearest even, in integer operations."""
    bits = bitcast(x, dtypes.uint32)
    magnitude = binary(Op.AND, bits, 0x7FFFFFFF)
    odd = binary(Op.AND, binary(Op.SHR, magnitude, 13), 1)
    # Exponent bias 127 -> 15, and half a unit of the last place that stays.
    rebiased = binary(Op.ADD, magnitude, (1 << 32) - (112 << 23) + 0xFFF)
    normal = binary(Op.SHR, binary(Op.ADD, rebiased, odd), 13)
    # Adding 0.5 leaves units of 2**-24, the spacing of float16's subnormals, in the low bits.
    shifted = bitcast(binary(Op.ADD, bitcast(magnitude, dtypes.float32), 0.5), dtypes.uint32)
    subnormal = binary(Op.ADD, shifted, (1 << 32) - 0x3F000000)
    finite = choose(compare(Op.CMPLT, magnitude, 0x38800000), subnormal, normal)
    large = choose(
        compare(Op.CMPNE, x, x), constant_like(bits, 0x7E00), constant_like(bits, 0x7C00)
    )
    result = choose(compare(Op.CMPLT, magnitude, 0x47800000), finite, large)
    sign = binary(Op.AND, binary(Op.SHR, bits, 16), 0x8000)
    return bitcast(cast(binary(Op.OR, result, sign), dtypes.uint16), dtypes.float16)


def _round_to_odd(x: Node) -> Node:
    """float64 to float32 such that rounding once more to a half type rounds correctly.

    Cut towards zero, with the last bit set when anything was lost: so no second rounding can
    mistake a value near a tie for the tie.
    """
    near = cast(x, dtypes.float32)
    back = cast(near, dtypes.float64)
    magnitude = (1 << 63) - 1

    def absolute(value: Node) -> Node:
        return binary(Op.AND, bitcast(value, dtypes.uint64), magnitude)

    too_far = compare(Op.CMPLT, absolute(x), absolute(back))
    bits = bitcast(near, dtypes.uint32)
    cut = choose(too_far, binary(Op.ADD, bits, (1 << 32) - 1), bits)
    inexact = compare(Op.CMPNE, back, x)
    return bitcast(choose(inexact, binary(Op.OR, cut, 1), cut), dtypes.float32)


def guard_division(node: Node) -> Node:
    """IDIV or MOD that never traps: x/0 and x%0 are 0, and the least integer / -1 wraps."""
    a, b = node.src
    divisor = b.src[0] if b.op is Op.BROADCAST else b
    signed = node.dtype.kind == "i"
    if _never(divisor, 0) and (not signed or _never(divisor, -1)):
        return node
    zero = compare(Op.CMPEQ, b, 0)
    unsafe = zero
    if signed:
        minus_one = compare(Op.CMPEQ, b, -1)
        unsafe = Node(Op.OR, zero.dtype, (zero, minus_one))
    safe = Node(node.op, node.dtype, (a, choose(unsafe, constant_like(b, 1), b)))
    if node.op is Op.MOD:  # x % 1 is the 0 that is wanted
        return safe
    quotient = choose(minus_one, binary(Op.MUL, a, -1), safe) if signed else safe
    return choose(zero, constant_like(a, 0), quotient)


def _never(divisor: Node, value: int) -> bool:
    """Whether it is known that `divisor` does not have that value."""
    from compiler.symbolic import bounds

    low, high = bounds(divisor)
    return not low <= value <= high
