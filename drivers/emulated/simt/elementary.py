"""Exponentials, logarithms, sines and exact scaling over lanes, as good as a GPU's own units.

Coefficients are least-squares fits at Chebyshev nodes, rounded to float32; the errors beside
them are those of the polynomials. With rounding, results are within 2 ulp (tested).
"""

from __future__ import annotations

from drivers.emulated.simt.values import Value

# 2^x for |x| ≤ 1/2: relative error 2.6e-9.
_EXP2 = (
    0.00015469732170458883, 0.0013400432653725147, 0.00961802527308464,
    0.05550327152013779, 0.24022650718688965, 0.6931471824645996, 1.0,
)
# log2(1 + x) / x for 1 + x from √½ to √2: relative error 4.1e-9.
_LOG2 = (
    -0.11020159721374512, 0.18631209433078766, -0.19102497398853302, 0.2045752853155136,
    -0.23961904644966125, 0.2885688841342926, -0.3606966435909271, 0.4808982014656067,
    -0.7213473320007324, 1.4426950216293335,
)
# sin(2πx) / x in x² for |x| ≤ 1/4: relative error 2.7e-11.
_SIN = (
    -14.394135475158691, 42.00980758666992, -76.70428466796875, 81.605224609375,
    -41.34170150756836, 6.2831854820251465,
)
_SQRT_HALF = 0x3F3504F3


def exp2(x: Value) -> Value:
    """2^x in float32."""
    whole = x.min(129.0).max(-151.0).intrinsic("rint")
    exponent = whole.to("i32")
    first = exponent >> 1
    result = (x - whole).polynomial(_EXP2) * power_of_two(first)
    result = result * power_of_two(exponent - first)
    result = (x > 129.0).select(float("inf"), (x < -151.0).select(0.0, result))
    return x.fcmp("uno", x).select(x, result)


def power_of_two(exponent: Value) -> Value:
    """2^exponent in float32, for exponents of normal numbers."""
    return ((exponent + 127) << 23).as_type("f32")


def log2(x: Value) -> Value:
    """The logarithm to base 2 in float32."""
    tiny = x < 2.0**-126
    scaled = tiny.select(x * 2.0**24, x)
    bits = scaled.as_type("i32") - _SQRT_HALF
    exponent = (bits >> 23).to("f32") - tiny.select(24.0, x.like(0.0))
    fraction = ((bits & 0x7FFFFF) + _SQRT_HALF).as_type("f32") - 1.0
    result = fraction.fma(fraction.polynomial(_LOG2), exponent)
    result = x.equals(float("inf")).select(x, result)
    result = x.equals(0.0).select(float("-inf"), result)
    return (x >= 0.0).select(result, x.like(float("nan")))


def sin_turns(x: Value) -> Value:
    """sin(2πx) in float32."""
    rest = x - x.intrinsic("rint")
    half = x.like(0.5).intrinsic("copysign", rest)
    return _sin_quarter((rest.abs() > 0.25).select(half - rest, rest))


def cos_turns(x: Value) -> Value:
    """cos(2πx) in float32."""
    return _sin_quarter(0.25 - (x - x.intrinsic("rint")).abs())


def _sin_quarter(x: Value) -> Value:
    return (x * x).polynomial(_SIN) * x


def ldexp(x: Value, exponent: Value) -> Value:
    """x × 2^exponent, rounded once."""
    exponent = exponent.to("i32")
    if x.width == 64:
        # The largest step last: before it nothing is rounded that still counts.
        rest = exponent.min(2200).max(-2200)
        steps = []
        for _ in range(3):
            steps.append(rest.min(1023).max(-1022))
            rest = rest - steps[-1]
        for step in reversed(steps):
            x = x * _double_power(step)
        return x
    wide = x.to("f64") * _double_power(exponent.min(300).max(-300))
    return wide.to(x.type)


def _double_power(exponent: Value) -> Value:
    return ((exponent.to("i64") + 1023) << 52).as_type("f64")


def exponent_of(x: Value) -> Value:
    """The biased exponent field, as i32."""
    mantissa = {16: 10, 32: 23, 64: 52}[x.width]
    field = (x.as_type(f"u{x.width}") >> mantissa) & ((1 << (x.width - 1 - mantissa)) - 1)
    return field.to("i32")


def _normalised(x: Value) -> tuple[Value, Value]:
    """x with denormals scaled up, and the exponent (i32) that scaling added."""
    shift = {16: 11, 32: 24, 64: 53}[x.width]
    smallest = {16: 2.0**-14, 32: 2.0**-126, 64: 2.0**-1022}[x.width]
    denormal = x.abs() < smallest
    zero = x.build.number("i32", 0, x.lanes)
    return denormal.select(x * 2.0**shift, x), denormal.select(shift, zero)


def frexp_exponent(x: Value) -> Value:
    """The e of x = m × 2^e with ½ ≤ |m| < 1; 0 for zeros, infinities and NaN."""
    scaled, added = _normalised(x)
    bias = {16: 14, 32: 126, 64: 1022}[x.width]
    special = x.equals(0.0).as_type("m1") | x.abs().fcmp("ueq", x.like(float("inf")))
    exponent = exponent_of(scaled) - bias - added
    return special.select(0, exponent)


def frexp_mantissa(x: Value) -> Value:
    """The m of x = m × 2^e with ½ ≤ |m| < 1."""
    scaled, _ = _normalised(x)
    type = f"u{x.width}"
    mantissa = {16: 10, 32: 23, 64: 52}[x.width]
    keep = 1 << (x.width - 1) | (1 << mantissa) - 1
    bias = {16: 14, 32: 126, 64: 1022}[x.width]
    result = ((scaled.as_type(type) & keep) | (bias << mantissa)).as_type(x.type)
    special = x.equals(0.0) | x.abs().fcmp("ueq", x.like(float("inf")))
    return special.select(x, result)


def fract(x: Value) -> Value:
    """x − ⌊x⌋, below 1 in every case."""
    below_one = {16: 0x3BFF, 32: 0x3F7FFFFF, 64: 0x3FEFFFFFFFFFFFFF}[x.width]
    limit = x.build.constant(x.type, below_one, x.lanes)
    rest = x - x.intrinsic("floor")
    rest = (rest > limit).select(limit, rest)
    return x.abs().equals(float("inf")).select(0.0, rest)


# ---- the division sequence: div_scale, div_fmas, div_fixup ----
# As in AMD's "MI300 ISA" and "RDNA3 ISA", the operations' pseudo code.
_SCALE = {32: (96, 64, 23, 126), 64: (768, 128, 53, 1022)}


def div_scale(x: Value, denominator: Value, numerator: Value) -> tuple[Value, Value]:
    """Scales a division's operand out of reach of overflow; and whether div_fmas undoes it."""
    far, by, small, bias = _SCALE[x.width]
    up, down = x * 2.0**by, x * 2.0**-by
    numerator_exponent, denominator_exponent = exponent_of(numerator), exponent_of(denominator)
    difference = numerator_exponent - denominator_exponent
    is_denominator, is_numerator = x.equals(denominator), x.equals(numerator)
    large = difference >= far
    denormal = denominator_exponent.equals(0)
    inverse_denormal = denominator_exponent > 2 * bias
    quotient_denormal = difference < -bias
    both = inverse_denormal & quotient_denormal
    result = (numerator_exponent <= small).select(up, x)
    result = quotient_denormal.select(is_numerator.select(up, x), result)
    result = inverse_denormal.select(down, result)
    # The documents scale the denominator up here, which would overflow.
    result = both.select(is_denominator.select(down, x), result)
    result = denormal.select(up, result)
    result = large.select(is_denominator.select(up, x), result)
    zero = denominator.equals(0.0) | numerator.equals(0.0)
    result = zero.select(x.like(float("nan")), result)
    undo = large | (~denormal & quotient_denormal)
    return result, undo & ~zero


def div_fmas(a: Value, b: Value, c: Value, undo: Value) -> Value:
    """a × b + c, scaled back where div_scale asked for it."""
    _, by, _, bias = _SCALE[a.width]
    high = exponent_of(c) > bias + 1
    if a.width == 32:  # the scaled sum is rounded once: float64 has room for it
        exact = a.to("f64").fma(b.to("f64"), c.to("f64"))
        scale = undo.select(high.select(2.0**by, exact.like(2.0**-by)), exact.like(1.0))
        return (exact * scale).to("f32")
    result = a.fma(b, c)
    return undo.select(high.select(result * 2.0**by, result * 2.0**-by), result)


def div_fixup(quotient: Value, denominator: Value, numerator: Value) -> Value:
    """The quotient with its special cases put right."""
    infinity = quotient.like(float("inf"))
    zero_d, zero_n = denominator.equals(0.0), numerator.equals(0.0)
    inf_d, inf_n = denominator.abs().equals(infinity), numerator.abs().equals(infinity)
    bits = f"u{quotient.width}"
    sign_bits = denominator.as_type(bits) ^ numerator.as_type(bits)
    signed = quotient.abs()
    signed = (signed < infinity).select(signed, infinity)  # the steps overflow to infinity or NaN
    signed = (inf_d | zero_n).select(0.0, signed)
    signed = (zero_d | inf_n).select(infinity, signed)
    result = signed.intrinsic("copysign", sign_bits.as_type(quotient.type))
    result = ((zero_d & zero_n) | (inf_d & inf_n)).select(float("nan"), result)
    result = denominator.fcmp("uno", denominator).select(denominator, result)
    return numerator.fcmp("uno", numerator).select(numerator, result)
