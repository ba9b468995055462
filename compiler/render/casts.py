"""Conversions and divisions that processors lack, spelled out in operations that all have.

Every function takes a node of any number of lanes and returns one of as many. bfloat16 and,
where the processor cannot convert it, float16 are handled as their 16 bits.
"""

from __future__ import annotations

from compiler.dtype import DType, dtypes
from compiler.expressions import binary, bitcast, cast, choose, compare, constant_like
from compiler.ir import Node, Op

HALVES = (dtypes.float16, dtypes.bfloat16)


def convert(x: Node, dtype: DType, native_half: bool) -> Node:
    """CAST(x) to `dtype` in steps that every target has.

    Left over are casts between integers, float32 and float64, from bool to those, from floats
    to int32, int64 and uint64, and with `native_half` between float16 and float32.
    """
    source, dtype = x.dtype.scalar, dtype.scalar
    if source is dtype:
        return x
    if dtype is dtypes.bool:
        if source in HALVES:
            x = binary(Op.AND, bitcast(x, dtypes.uint16), 0x7FFF)
        return compare(Op.CMPNE, x, 0)
    if dtype in HALVES:
        return _to_half(x, dtype, native_half)
    if source in HALVES:
        return convert(_half_to_float(x, native_half), dtype, native_half)
    if source.kind == "f" and dtype.kind in "iu" and dtype is not dtypes.uint64:
        # By way of a wider integer, whose low bits are what NumPy and PyTorch give on x86.
        return cast(cast(x, dtypes.int32 if dtype.bits < 32 else _signed_for(dtype)), dtype)
    return cast(x, dtype)


def _signed_for(dtype: DType) -> DType:
    return dtypes.int64 if dtype.bits == 64 or dtype is dtypes.uint32 else dtypes.int32


def _to_half(x: Node, dtype: DType, native_half: bool) -> Node:
    source = x.dtype.scalar
    if source is dtypes.bool:
        return choose(x, constant_like(x, 1.0, dtype), constant_like(x, 0.0, dtype))
    if source in HALVES:
        x = _half_to_float(x, native_half)
    elif source is dtypes.float64:
        x = _round_to_odd(x)
    else:
        x = cast(x, dtypes.float32)
    if dtype is dtypes.bfloat16:
        return _float_to_bfloat16(x)
    return cast(x, dtype) if native_half else _float_to_float16(x)


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
