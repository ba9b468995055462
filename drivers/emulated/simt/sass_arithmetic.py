"""What NVIDIA's arithmetic instructions compute: a function for each name, over operand values."""

from __future__ import annotations

from collections.abc import Callable

from drivers.emulated.simt import elementary
from drivers.emulated.simt.sass_registers import SassRegisters
from drivers.emulated.simt.values import Value

Semantics = Callable[[SassRegisters], None]
_COMPARE = ("false", "lt", "eq", "le", "gt", "ne", "ge", "true")
_FLOAT_COMPARE = ("false", "olt", "oeq", "ole", "ogt", "one", "oge", "ord",
                  "uno", "ult", "ueq", "ule", "ugt", "une", "uge", "true")


def _flag(b: SassRegisters, name: str) -> int:
    return b.i.fields.get(name, 0)


def _p(b: SassRegisters, token: str) -> Value:
    return b.predicate(b.i.operand(token), b.lanes)


def _set(b: SassRegisters, token: str, value: Value) -> None:
    b.set_predicate(b.i.operand(token), value)


# ---- integers ----
def iadd3(b: SassRegisters) -> None:
    """The sum of three, with carries in and out."""
    i, x = b.i, _flag(b, "x")
    carries = [i.operand(t).number != 7 for t in ("P81", "P84")]
    if not x and not any(carries):
        b.result(b.source("a") + b.source("b") + b.source("c"))
        return
    total = b.constant("u64", 0, b.lanes)
    for token in "abc":
        o = i.operand(token)
        value = b.word(o)
        if o.negate:
            value = ~value
            if not x:
                total = total + 1
        total = total + value.to("u64")
    if x:
        total = total + _p(b, "p87").to("u64") + _p(b, "p77").to("u64")
    b.result(total.to("u32"))
    over = total >> 32
    if any(carries):
        # Two negated sources can carry twice; each predicate takes one.
        _set(b, "P81", over.differs(0))
        _set(b, "P84", over > 1)


def _sign(b: SassRegisters) -> str:
    return "i" if _flag(b, "u32") else "u"


def imad(b: SassRegisters) -> None:
    """a × b + c, of the low halves; .X adds a carry."""
    c = b.i.operand("c")
    term = b.word(c)
    if _flag(b, "x"):
        term = ~term if c.negate else term
        total = b.source("a") * b.source("b") + term + _p(b, "p87").to("u32")
    else:
        total = b.source("a") * b.source("b") + (-term if c.negate else term)
    b.result(total)


def uimad(b: SassRegisters) -> None:
    """a × b + c in the uniform datapath."""
    b.result(b.source("a") * b.source("b") + b.source("c"))


def imad_wide(b: SassRegisters) -> None:
    """The whole product plus a 64-bit c, and its carry."""
    s = _sign(b)
    product = (b.source("a", f"{s}32").to(f"{s}64") * b.source("b", f"{s}32").to(f"{s}64"))
    c = b.source("c", "u64")
    total = product.as_type("u64") + c
    carry = total < c
    b.result(total)
    if "P81" in b.i.row.positions:
        _set(b, "P81", carry)


def imad_hi(b: SassRegisters) -> None:
    """The upper half of the product plus a 64-bit c, whose upper half is c's neighbour."""
    s = _sign(b)
    product = (b.source("a", f"{s}32").to(f"{s}64") * b.source("b", f"{s}32").to(f"{s}64"))
    c = b.source("c", "u64")
    total = product.as_type("u64") + c
    carry = total < c
    b.result((total >> 32).to("u32"))
    _set(b, "P81", carry)


def lea(b: SassRegisters) -> None:
    """(a << shift) + b, or with .HI the upper half of a shifted pair."""
    i, shift = b.i, b.i.operand("75.5" if False else "#75.5").number
    o = i.operand("a")
    low = b.word(o)
    if _flag(b, "hi"):
        if _flag(b, "sx32"):
            wide = low.as_type("i32").to("i64").as_type("u64")
        else:
            wide = low.to("u64") | (b.word(i.operand("c")).to("u64") << 32)
        if o.negate:
            wide = -wide if not _flag(b, "x") else ~wide
        shifted = ((wide << shift) >> 32).to("u32")
    else:
        if o.negate:
            low = -low if not _flag(b, "x") else ~low
        shifted = low << shift
    total = shifted.to("u64") + b.source("b").to("u64")
    if _flag(b, "x"):
        total = total + _p(b, "p87").to("u64")
    b.result(total.to("u32"))
    _set(b, "P81", (total >> 32).differs(0))


def table(values: list[Value], lut: int) -> Value:
    """A function of three bits by its table: bit 4a + 2b + c of `lut`."""
    a, second, c = values
    if lut == 0xC0:
        return a & second
    if lut == 0xFC:
        return a | second
    if lut == 0x3C:
        return a ^ second
    if lut == 0x33:
        return ~second
    total: Value | None = None
    for number in range(8):
        if lut >> number & 1:
            term = a if number & 4 else ~a
            term = term & (second if number & 2 else ~second)
            term = term & (c if number & 1 else ~c)
            total = term if total is None else total | term
    return total if total is not None else a & ~a


def lop3(b: SassRegisters) -> None:
    """Any function of three, bit by bit; the predicate tells whether a bit is set."""
    value = table([b.source(t) for t in "abc"], b.i.operand("#72.8").number)
    b.result(value)
    _set(b, "P81", value.differs(0) | _p(b, "p87"))


def plop3(b: SassRegisters) -> None:
    """Two functions of three predicates."""
    values = [_p(b, "p87"), _p(b, "p77"), _p(b, "p68U")]
    first = table(values, b.i.operand("lut").number)
    second = table(values, b.i.operand("#16.8").number)
    _set(b, "P81", first)
    _set(b, "P84", second)


def shf(b: SassRegisters) -> None:
    """Shifts the pair (c, a); which half is the result says .HI."""
    f = b.i.fields
    wide, signed = f["kind"] < 2, f["kind"] in (0, 2)
    low, amount, high = b.source("a"), b.source("b"), b.source("c")
    limit = 64 if wide else 32
    # A funnel of 64 bits; amounts wrap with .W, else they stop at the width.
    amount = amount & (limit - 1) if f["w"] else amount.min(limit)
    pair = low.to("u64") | (high.to("u64") << 32)
    count, over = amount.to("u64"), amount > 63
    zero = pair.like(0)
    if f["shift"]:
        if signed:
            moved = pair.as_type("i64") >> count.min(63).as_type("i64")
            moved = moved.as_type("u64")
        else:
            moved = over.select(zero, pair >> count)
        b.result((moved >> 32 if f["hi"] else moved).to("u32"))
    else:
        if not f["hi"]:
            pair = low.to("u64")
        moved = over.select(zero, pair << count)
        b.result((moved >> 32 if f["hi"] else moved).to("u32"))


def prmt(b: SassRegisters) -> None:
    """Four bytes chosen among the eight of (c, a)."""
    if _flag(b, "prmt"):
        raise b.refuse()
    choice = b.i.operand("b")
    pair = b.source("a").to("u64") | (b.source("c").to("u64") << 32)
    total: Value | None = None
    for place in range(4):
        if choice.kind == "I":
            nibble = choice.number >> 4 * place & 15
            byte = (pair >> 8 * (nibble & 7)).to("u32") & 0xFF
            if nibble & 8:
                byte = (0 - (byte >> 7)) & 0xFF
        else:
            selector = (b.source("b") >> 4 * place) & 15
            byte = (pair >> ((selector & 7) << 3).to("u64")).to("u32") & 0xFF
            byte = (selector & 8).differs(0).select((0 - (byte >> 7)) & 0xFF, byte)
        moved = byte << 8 * place
        total = moved if total is None else total | moved
    assert total is not None
    b.result(total)


def _combine(b: SassRegisters, compared: Value, other: Value) -> Value:
    return (compared & other, compared | other, compared ^ other)[b.i.fields["bool"]]


def _compare(a: Value, second: Value, number: int) -> Value:
    name = _COMPARE[number]
    if name in ("false", "true"):
        return a.build.constant("m1", name == "true", a.lanes)
    return a._compare(name, second)


def isetp(b: SassRegisters) -> None:
    """A comparison; .EX goes on from that of the lower halves."""
    f, s = b.i.fields, _sign(b)
    a, second = b.source("a", f"{s}32"), b.source("b", f"{s}32")
    compared = _compare(a, second, f["cmp"])
    if f["ex"]:
        lower, name = _p(b, "p68"), _COMPARE[f["cmp"]]
        equal = a.equals(second)
        if name in ("eq", "ne"):
            compared = equal & lower if name == "eq" else ~equal | lower
        else:
            compared = _compare(a, second, 1 if "l" in name else 4) | (equal & lower)
    other = _p(b, "p87")
    _set(b, "P81", _combine(b, compared, other))
    _set(b, "P84", _combine(b, ~compared, other))


def _extreme(b: SassRegisters, type: str) -> None:
    a, second = b.source("a", type), b.source("b", type)
    choice = b.i.operand("p87")
    if choice.number == 7:
        b.result(a.max(second) if choice.negate else a.min(second))
    else:
        b.result(_p(b, "p87").select(a.min(second), a.max(second)))


def imnmx(b: SassRegisters) -> None:
    """The smaller where the predicate holds, else the larger."""
    _extreme(b, f"{_sign(b)}32")


def vimnmx(b: SassRegisters) -> None:
    """The same on Hopper, also of two halves."""
    kind = b.i.fields["vim"]
    if kind < 2:
        _extreme(b, "ui"[kind] + "32")
        return
    type = "ui"[kind - 2] + "16"
    parts = []
    for shift in (0, 16):
        a, second = ((b.source(t) >> shift).to("u16").as_type(type) for t in "ab")
        least = _p(b, "p87")
        parts.append(least.select(a.min(second), a.max(second)).as_type("u16").to("u32"))
    b.result(parts[0] | (parts[1] << 16))


def viaddmnmx(b: SassRegisters) -> None:
    """min or max of a + b and c."""
    s = "ui"[b.i.fields["addmin"]] + "32"
    total = (b.source("a") + b.source("b")).as_type(s)
    c = b.source("c").as_type(s)
    b.result(_p(b, "p87").select(total.min(c), total.max(c)))


def flo(b: SassRegisters) -> None:
    """The place of the highest set bit (that differs from the sign), −1 for none."""
    value = b.source("e")
    if _flag(b, "u32"):
        signed = value.as_type("i32")
        value = value ^ (signed >> 31).as_type("u32")
    zeros = value.intrinsic("ctlz", "i1 false")
    place = zeros if _flag(b, "sh") else 31 - zeros
    none = value.equals(0)
    b.result(none.select(0xFFFFFFFF, place))
    _set(b, "P81", ~none)


def idp(b: SassRegisters) -> None:
    """c plus the products of four bytes."""
    kind = b.i.fields["dp"]
    total = b.source("c")
    a, second = b.source("a"), b.source("b")
    for place in range(4):
        parts = []
        for value, signed in ((a, kind & 1), (second, kind & 2)):
            byte = (value >> 8 * place).to("u8")
            parts.append(byte.as_type("i8").to("i32").as_type("u32") if signed else byte.to("u32"))
        total = total + parts[0] * parts[1]
    b.result(total)


# ---- floats ----
def _quiet(b: SassRegisters, value: Value, ftz: bool) -> Value:
    if not ftz:
        return value
    tiny = value.abs() < 2.0**-126
    return tiny.select(value.like(0.0).intrinsic("copysign", value), value)


def _floats(b: SassRegisters, tokens: str, type: str = "f32") -> list[Value]:
    ftz = bool(_flag(b, "ftz"))
    return [_quiet(b, b.source(t, type), ftz) for t in tokens]


def _rounded(b: SassRegisters, exact: Callable[[list[Value]], Value], values: list[Value],
             wide: Callable[[list[Value]], Value] | None) -> None:
    mode = _flag(b, "rnd")
    result = exact(values)
    if mode:
        if wide is None or result.width == 64:
            result = _directed_double(result, values, mode)
        else:
            # float64 holds sums and products of floats nearly exactly; then it rounds as told.
            precise = wide([v.to("f64") for v in values])
            result = _toward(precise, result, mode)
    if _flag(b, "sat"):
        result = (result > 0.0).select(result, result.like(0.0)).min(1.0)
    b.result(_quiet(b, result, bool(_flag(b, "ftz"))))


def _step(value: Value, up: Value) -> Value:
    """The neighbouring float above or below."""
    bits = value.as_type(f"i{value.width}")
    away = (bits >= 0).equals(up)
    moved = away.select(bits + 1, bits - 1)
    zero = value.equals(0.0)
    least = up.select(1, bits.like(0)) | (~up).select((1 << value.width - 1) + 1, bits.like(0))
    return zero.select(least, moved).as_type(value.type)


def _toward(precise: Value, nearest: Value, mode: int) -> Value:
    back = nearest.to("f64")
    low, high = back > precise, back < precise  # the nearest lies above, below
    yes = low.build.constant("m1", 1, low.lanes)
    down, upward = _step(nearest, ~yes), _step(nearest, yes)
    if mode == 1:
        return low.select(down, nearest)
    if mode == 2:
        return high.select(upward, nearest)
    positive = precise > 0.0
    return (positive & low).select(down, (~positive & high).select(upward, nearest))


def _directed_double(result: Value, values: list[Value], mode: int) -> Value:
    """With the error of the nearest result, by exact transformations."""
    if len(values) == 2:
        return result
    a, second, c = values
    product = a * second
    rest = a.fma(second, -product)
    total = product + c
    back = total - product
    error = (product - (total - back)) + (c - back) + rest
    error = error - (result - total)
    yes = error.build.constant("m1", 1, error.lanes)
    down, upward = _step(result, ~yes), _step(result, yes)
    if mode == 1:
        return (error < 0.0).select(down, result)
    if mode == 2:
        return (error > 0.0).select(upward, result)
    positive = result > 0.0
    lower = (positive & (error < 0.0)).select(down, result)
    return (~positive & (error > 0.0)).select(upward, lower)


def _add(v: list[Value]) -> Value:
    return v[0] + v[1]


def _multiply(v: list[Value]) -> Value:
    return v[0] * v[1]


def _fma(v: list[Value]) -> Value:
    return v[0].fma(v[1], v[2])


def fmnmx(b: SassRegisters) -> None:
    """min where the predicate holds, else max; .NAN lets a NaN through."""
    a, second = _floats(b, "ab")
    least, most = ((a.minimum(second), a.maximum(second)) if _flag(b, "nan")
                   else (a.min(second), a.max(second)))
    choice = b.i.operand("p87")
    if choice.number == 7:
        b.result(most if choice.negate else least)
    else:
        b.result(_p(b, "p87").select(least, most))


def _float_setp(b: SassRegisters, a: Value, second: Value, field: str) -> None:
    number, other = b.i.fields[field], _p(b, "p87")
    if field == "dcmp" and number in (0, 15):
        # The first tells whether a is the smaller (larger), the second whether both are NaN.
        orders = (a.min(second) if number == 0 else a.max(second)).as_type("u64")
        first = orders.equals(a.as_type("u64")) & a.fcmp("ord", a) | second.fcmp("uno", second)
        _set(b, "P81", _combine(b, first, other))
        both = a.fcmp("uno", a) & second.fcmp("uno", second)
        _set(b, "P84", _combine(b, both, other))
        return
    compared = a.fcmp(_FLOAT_COMPARE[number], second)
    _set(b, "P81", _combine(b, compared, other))
    _set(b, "P84", _combine(b, ~compared, other))


def fchk(b: SassRegisters) -> None:
    """Whether a / b needs the slow way: exponents far out, or special numbers."""
    a, second = _floats(b, "ab")
    ea, eb = elementary.exponent_of(a), elementary.exponent_of(second)
    far = (ea - eb).abs() > 120
    odd = ea.equals(255) | eb.equals(255) | eb.equals(0) | (ea < 32) | (eb > 250)
    _set(b, "P81", far | odd)


def mufu(b: SassRegisters) -> None:
    """A function of the special unit."""
    what = ("cos", "sin", "ex2", "lg2", "rcp", "rsq", "rcp64h", "rsq64h", "sqrt",
            "tanh")[b.i.fields["mufu"]]
    x = b.source("e", "f32")
    if what in ("rcp64h", "rsq64h"):
        wide = (b.source("e").to("u64") << 32).as_type("f64")
        root = wide.intrinsic("sqrt") if what == "rsq64h" else wide
        found = ((1.0 / root).as_type("u64") >> 32).to("u32")
        b.result(found)
        return
    if what in ("cos", "sin"):
        turns = x  # RRO is gone: the operand is in radians
        turns = turns * 0.15915494309189535
        b.result(elementary.sin_turns(turns) if what == "sin" else elementary.cos_turns(turns))
    elif what == "ex2":
        b.result(elementary.exp2(_quiet(b, x, True)))
    elif what == "lg2":
        b.result(elementary.log2(x))
    elif what == "rcp":
        b.result(1.0 / x)
    elif what == "rsq":
        b.result((1.0 / x.to("f64").intrinsic("sqrt")).to("f32"))
    elif what == "sqrt":
        b.result(x.intrinsic("sqrt"))
    else:
        e = elementary.exp2(x.abs() * 2.8853900817779268)
        b.result((1.0 - 2.0 / (e + 1.0)).intrinsic("copysign", x))


_FLOATS = {1: "f16", 2: "f32", 3: "f64"}


def _narrow(b: SassRegisters, token: str, type: str) -> Value:
    """A source of 16, 32 or 64 bits with its signs."""
    if type != "f16":
        return _quiet(b, b.source(token, type), bool(_flag(b, "ftz")) and type == "f32")
    o = b.i.operand(token)
    value = b.word(o).to("u16").as_type("f16")
    value = value.abs() if o.absolute else value
    return -value if o.negate else value


def _put_float(b: SassRegisters, value: Value) -> None:
    b.result(value.as_type("u16").to("u32") if value.width == 16 else value)


def f2f(b: SassRegisters) -> None:
    """From one width to another."""
    source, target = _FLOATS[b.i.fields["src"]], _FLOATS[b.i.fields["dst"]]
    value = _narrow(b, "e", source)
    result = value.to(target)
    if b.i.fields["rnd"]:
        if (source, target) != ("f64", "f32"):
            raise b.refuse("rounds in a direction, which is not translated yet")
        result = _toward(value, result, b.i.fields["rnd"])
    _put_float(b, result)


_ROUND = ("roundeven", "floor", "ceil", "trunc")


def f2i(b: SassRegisters) -> None:
    """To an integer, saturated; NaN gives the least or greatest, as the unit has it."""
    f = b.i.fields
    value = _narrow(b, "e", _FLOATS[f["src"]])
    if value.width == 16:
        value = value.to("f32")
    width = 8 << f["int_dst"]
    type = ("i" if f["f2i"] else "u") + str(width)
    rounded = value.intrinsic(_ROUND[f["trunc"]])
    result = rounded.to(type)
    if width == 64 or not f["f2i"] and width == 32 and False:
        special = result.like(-(1 << 63) if f["f2i"] else 1 << 63)
        result = value.fcmp("uno", value).select(special, result)
    if width < 32:
        result = result.to(type[0] + "32")
    b.result(result.as_type(f"u{result.width}"))


def i2f(b: SassRegisters) -> None:
    """From an integer."""
    f = b.i.fields
    width, sign = 8 << f["isrc"], "i" if f["i2f"] else "u"
    value = b.source("e", "u64" if width == 64 else "u32")
    if width < 32:
        value = value.to(f"u{width}")
    value = value.as_type(f"{sign}{width}")
    target = _FLOATS[f["dst"]]
    result = value.to("f32" if target == "f16" else target)
    if f["rnd"]:
        result = _exact_integer(value, result, f["rnd"])
    _put_float(b, result.to(target) if target == "f16" else result)


def _exact_integer(value: Value, nearest: Value, mode: int) -> Value:
    """Rounded in a direction: the nearest float is compared with the integer."""
    wide = "i128" if value.type[0] == "i" else "u128"
    exact = value.to(wide)
    back = nearest.build.value(
        f"fpto{'s' if wide[0] == 'i' else 'u'}i {nearest.llvm} {nearest.text} to "
        f"{nearest.build.spell(wide, nearest.lanes)}", wide, nearest.lanes)
    low, high = back > exact, back < exact
    yes = low.build.constant("m1", 1, low.lanes)
    down, upward = _step(nearest, ~yes), _step(nearest, yes)
    if mode == 1:
        return low.select(down, nearest)
    if mode == 2:
        return high.select(upward, nearest)
    positive = nearest >= 0.0
    return (positive & low).select(down, (~positive & high).select(upward, nearest))


def frnd(b: SassRegisters) -> None:
    """To a whole number."""
    value = _narrow(b, "e", _FLOATS[b.i.fields["src"]])
    if value.width == 16:
        _put_float(b, value.to("f32").intrinsic(_ROUND[b.i.fields["trunc"]]).to("f16"))
    else:
        b.result(value.intrinsic(_ROUND[b.i.fields["trunc"]]))


def f2fp(b: SassRegisters) -> None:
    """Two floats as two halves: a in the upper."""
    high, low = (b.source(t, "f32").to("f16").as_type("u16").to("u32") for t in "ab")
    b.result((high << 16) | low)


def _halves(b: SassRegisters, token: str) -> list[Value]:
    o = b.i.operand(token)
    word = b.word(o)
    parts = [word.to("u16"), (word >> 16).to("u16")]
    low, high = {0: (0, 1), 2: (0, 0), 3: (1, 1)}[o.select]
    chosen = [parts[low].as_type("f16"), parts[high].as_type("f16")]
    if o.absolute:
        chosen = [v.abs() for v in chosen]
    return [-v for v in chosen] if o.negate else chosen


def _packed(b: SassRegisters, low: Value, high: Value) -> None:
    b.result(low.as_type("u16").to("u32") | (high.as_type("u16").to("u32") << 16))


def hadd2(b: SassRegisters) -> None:
    """Sums of halves; .F32 is the low one's, as a float."""
    first, second = _halves(b, "a"), _halves(b, "e")
    if b.i.fields["f32out"]:
        b.result(first[0].to("f32") + second[0].to("f32"))
        return
    _packed(b, *(x + y for x, y in zip(first, second, strict=True)))


def hfma2(b: SassRegisters) -> None:
    """Products of halves plus halves."""
    parts = zip(*(_halves(b, t) for t in "abc"), strict=True)
    _packed(b, *(x.fma(y, z) for x, y, z in parts))


def _unary(function: Callable[[Value], Value], token: str = "e") -> Semantics:
    return lambda b: b.result(function(b.source(token)))


def sel(b: SassRegisters) -> None:
    """a where the predicate holds, else b."""
    b.result(_p(b, "p87").select(b.source("a"), b.source("b")))


def fsel(b: SassRegisters) -> None:
    """The same of floats, with signs."""
    a, second = _floats(b, "ab")
    b.result(_p(b, "p87").select(a, second))


ARITHMETIC: dict[str, Semantics] = {
    "IADD3": iadd3, "UIADD3": iadd3, "IMAD": imad, "UIMAD": uimad, "IMAD.WIDE": imad_wide,
    "UIMAD.WIDE": imad_wide, "IMAD.HI": imad_hi, "LEA": lea, "ULEA": lea, "LOP3": lop3,
    "ULOP3": lop3, "PLOP3": plop3, "SHF": shf, "USHF": shf, "PRMT": prmt, "UPRMT": prmt,
    "ISETP": isetp, "UISETP": isetp, "IMNMX": imnmx, "VIMNMX": vimnmx, "VIADDMNMX": viaddmnmx,
    "VIADD": lambda b: b.result(b.source("a") + b.source("b")),
    "IABS": lambda b: b.result(b.source("e", "i32").abs()),
    "POPC": _unary(lambda v: v.intrinsic("ctpop")), "UPOPC": _unary(lambda v: v.intrinsic("ctpop")),
    "BREV": _unary(lambda v: v.intrinsic("bitreverse")),
    "UBREV": _unary(lambda v: v.intrinsic("bitreverse")),
    "FLO": flo, "UFLO": flo, "IDP": idp, "MOV": _unary(lambda v: v), "UMOV": _unary(lambda v: v),
    "SEL": sel, "USEL": sel, "FSEL": fsel,
    "FADD": lambda b: _rounded(b, _add, _floats(b, "ae"), _add),
    "FMUL": lambda b: _rounded(b, _multiply, _floats(b, "ab"), _multiply),
    "FFMA": lambda b: _rounded(b, _fma, _floats(b, "abc"), _fma),
    "DADD": lambda b: _rounded(b, _add, _floats(b, "aC", "f64"), None),
    "DMUL": lambda b: _rounded(b, _multiply, _floats(b, "ab", "f64"), None),
    "DFMA": lambda b: _rounded(b, _fma, _floats(b, "abc", "f64"), None),
    "FMNMX": fmnmx, "FCHK": fchk, "MUFU": mufu, "F2F": f2f, "F2I": f2i, "I2F": i2f, "I2FP": i2f,
    "FRND": frnd, "F2FP": f2fp, "HADD2": hadd2, "HFMA2": hfma2,
    "FSETP": lambda b: _float_setp(b, *_floats(b, "ab"), "fcmp"),
    "DSETP": lambda b: _float_setp(b, *_floats(b, "ae", "f64"), "dcmp"),
}
