"""What NVIDIA's integer instructions compute, for each lane or, in the uniform ones, once."""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING

from drivers.emulated.simt.sass_decode import PT, RZ, URZ, Instruction, Operand
from drivers.emulated.simt.sass_registers import Sum
from drivers.emulated.simt.values import Value

if TYPE_CHECKING:
    from drivers.emulated.simt.sass import Semantics, Translator

_LARGEST_ELEMENT = 16  # bytes
_COMPARE = ("lt", "eq", "le", "gt", "ne", "ge")


def _none(operand: Operand) -> bool:
    """Whether it is a register that reads as 0."""
    return (operand.kind, operand.number) in (("R", RZ), ("UR", URZ)) or (
        operand.kind == "I" and operand.number == 0
    )


def _signed(i: Instruction) -> str:
    """`i` or `u`, by the U32 modifier."""
    return "i" if i.fields["u32"] else "u"


def combine(kind: int, left: Value, right: Value) -> Value:
    """AND, OR, XOR by their number in an instruction."""
    if kind == 0:
        return left & right
    return left | right if kind == 1 else left ^ right


# ---- sums ----
def _iadd3(t: Translator, i: Instruction) -> None:
    operands = {token: i.operand(token) for token in "abc"}
    carries = [token for token in ("P81", "P84") if i.operand(token).number != PT]
    extends = bool(i.fields["x"])
    if not carries and not extends:
        terms = [t.source(token) for token, operand in operands.items() if not _none(operand)]
        total = functools.reduce(lambda x, y: x + y, terms) if terms else t.raw(operands["a"])
        t.result(total)
        return
    negated = 0
    parts: list[Value] = []
    for token, operand in operands.items():
        negated += operand.negate and not extends
        if not _none(operand) or operand.negate:
            parts.append(t.inverted(token).to("u64"))
    wide = functools.reduce(lambda x, y: x + y, parts) if parts else t.raw(operands["a"]).to("u64")
    if negated:  # −x as its inverse and 1, so that the carry says that nothing was borrowed
        wide = wide + negated
    if extends:
        for token in ("p87", "p77"):
            operand = i.operand(token)
            if operand.number != PT or not operand.negate:
                wide = wide + t.read(token).to("u64")
    t.result(wide.to("u32"))
    above = wide >> 32
    t.decide("P81", above.differs(0))
    if i.operand("P84").number != PT:
        t.decide("P84", above > 1)


def _viadd(t: Translator, i: Instruction) -> None:
    t.result(t.source("a") + t.source("b"))


def _imad(t: Translator, i: Instruction) -> None:
    words = i.row.words
    if ".WIDE" in words or ".HI" in words:
        _wide_product(t, i, high=".HI" in words)
        return
    a, b, c = (i.operand(token) for token in "abc")
    term = t.inverted("c") if i.fields.get("x") else t.source("c")
    if _none(a) or _none(b):
        total = term
    else:
        total = t.source("a") if b.kind == "I" and b.number == 1 else t.source("a") * t.source("b")
        if not _none(c) or c.negate:
            total = total + term
    if i.fields.get("x"):
        total = total + t.read("p87").to("u32")
    t.result(total)


def _wide_product(t: Translator, i: Instruction, high: bool) -> None:
    sign = _signed(i)
    product = (t.raw(i.operand("a"), sign + "32").to(sign + "64")
               * t.raw(i.operand("b"), sign + "32").to(sign + "64")).as_type("u64")
    addend = i.operand("c")
    total, term = product, None
    if not _none(addend):
        term = t.raw(addend, "u64")
        if addend.negate:
            term = ~term if i.fields.get("x") else -term
        total = product + term
    if i.fields.get("x") or ("p87" in i.row.positions):
        total = total + t.read("p87").to("u64")
    if term is not None and not high and t.lanes and not i.fields.get("x"):
        _remember_sum(t, i, total, term)
    t.result((total >> 32).to("u32") if high else total)
    if "P81" in i.row.positions and i.operand("P81").number != PT:
        carry = total < product
        if "p87" in i.row.positions and term is not None:
            first = product + term
            carry = (first < product) | (total < first)
        t.decide("P81", carry)


def _remember_sum(t: Translator, i: Instruction, total: Value, term: Value) -> None:
    """Notes what an address is made of: a scalar and a lane's index times an element's size."""
    factor, base = t.known.get(t.raw(i.operand("b")).text), t.known.get(term.text)
    if base is None or factor is None or not factor.text.isdecimal() or _signed(i) != "i":
        return
    if 1 <= int(factor.text) <= _LARGEST_ELEMENT:
        index = t.raw(i.operand("a"), "i32")
        t.sums[total.text] = Sum(base.as_type("u64"), index, int(factor.text))


def _lea(t: Translator, i: Instruction) -> None:
    shift = i.operand("#75.5").number
    a, b = i.operand("a"), i.operand("b")
    extends = bool(i.fields["x"])
    low = t.raw(a)
    if i.fields["hi"]:
        if i.fields["sx32"]:
            upper = (low.as_type("i32") >> 31).as_type("u32")
        else:
            upper = t.raw(i.operand("c"))
        wide = (low.to("u64") | (upper.to("u64") << 32)) >> (32 - shift) if shift else (
            upper.to("u64")
        )
        part = wide.to("u32")
    else:
        part = low << shift if shift else low
    term = t.raw(b)
    wants_carry = i.operand("P81").number != PT
    negated = 0  # what is shifted is negated: as its inverse and 1, or a carry that stands for it
    if a.negate:
        part = ~part
        negated += not extends
    if b.negate:
        term = ~term
        negated += not extends
    if not wants_carry:
        total = part + term + negated if negated else part + term
        t.result(total + t.read("p87").to("u32") if extends else total)
        return
    long = part.to("u64") + term.to("u64")
    if extends:
        long = long + t.read("p87").to("u64")
    if negated:
        long = long + negated
    t.result(long.to("u32"))
    t.decide("P81", (long >> 32).differs(0))


def _idp(t: Translator, i: Instruction) -> None:
    """Dot products of bytes, or of halves and bytes."""
    total = t.source("c")
    a, b = t.raw(i.operand("a")), t.raw(i.operand("b"))
    if ".4A" in i.row.words:
        signs, width = i.fields["dp"], 8
        count, first = 4, 0
    else:
        signs, width = i.fields["dp2"], 16
        count, first = 2, 2 * i.fields["hilo"]
    for n in range(count):
        left = _field(a, width * n, width, bool(signs & 1))
        right = _field(b, 8 * (first + n), 8, bool(signs & 2))
        total = total + left * right
    t.result(total)


def _field(word: Value, first: int, width: int, signed: bool) -> Value:
    """Some bits of a word, extended."""
    above = word << (32 - first - width)
    if signed:
        return (above.as_type("i32") >> (32 - width)).as_type("u32")
    return above >> (32 - width)


# ---- bits ----
def _lop3(t: Translator, i: Instruction) -> None:
    table = i.operand("#72.8").number
    value = table_of_three(table, [t.raw(i.operand(token)) for token in "abc"])
    if i.operand("d").number not in (RZ,) or i.operand("d").kind == "UR":
        t.result(value)
    if i.operand("P81").number != PT:
        t.decide("P81", value.differs(0) | t.read("p87"))


def table_of_three(table: int, given: list[Value]) -> Value:
    """The function of three bits with that truth table, of whole words or truth values."""
    a, b, c = given
    known = {0xC0: lambda: a & b, 0xFC: lambda: a | b, 0x3C: lambda: a ^ b, 0x80: lambda: a & b & c,
             0xFE: lambda: a | b | c, 0x96: lambda: a ^ b ^ c, 0xF0: lambda: a, 0xCC: lambda: b,
             0xAA: lambda: c, 0x0F: lambda: ~a, 0x33: lambda: ~b, 0x55: lambda: ~c,
             0xF8: lambda: a | b & c, 0xEA: lambda: a & b | c, 0x30: lambda: a & ~b,
             0xC8: lambda: (a | c) & b, 0xE0: lambda: (b | c) & a, 0xA8: lambda: (a | b) & c,
             0xCA: lambda: a & b | ~a & c, 0xD8: lambda: a & ~c | b & c}
    if table in known:
        return known[table]()
    zero = a.build.constant(a.type, 0, a.lanes)
    total = None
    for row in range(8):
        if not table >> row & 1:
            continue
        term = None
        for bit, value in ((4, a), (2, b), (1, c)):
            one = value if row & bit else ~value
            term = one if term is None else term & one
        assert term is not None
        total = term if total is None else total | term
    return zero if total is None else total


def _shf(t: Translator, i: Instruction) -> None:
    """A funnel shift of {c, a}: the upper word if HI, else the lower."""
    fields = i.fields
    right, wraps, high = fields["shift"], fields["w"], fields["hi"]
    signed, width = fields["kind"] in (0, 2), 64 if fields["kind"] < 2 else 32
    low_operand, amount_operand, high_operand = (i.operand(token) for token in "abc")
    if amount_operand.kind == "I":
        number = amount_operand.number
        number = number & (width - 1) if wraps else min(number, width)
        t.result(_shifted_by(t, number, low_operand, high_operand, bool(right), bool(high), signed))
        return
    amount = t.raw(amount_operand)
    amount = amount & (width - 1) if wraps else amount.min(width)
    if width == 32 and not wraps and (
        (right and high) or (not right and not high)
    ):  # only one word matters
        word = t.raw(high_operand if right else low_operand)
        inside = amount < 32
        if right and signed:
            t.result((word.as_type("i32") >> amount.min(31)).as_type("u32"))
            return
        moved = word >> amount if right else word << amount
        t.result(inside.select(moved, word.like(0)))
        return
    wide = t.raw(low_operand).to("u64") | (t.raw(high_operand).to("u64") << 32)
    count = amount.to("u64")
    if right and signed:
        moved = (wide.as_type("i64") >> count.min(63)).as_type("u64")
    else:
        moved = wide >> count if right else wide << count
        if width == 64 and not wraps:
            moved = (count < 64).select(moved, wide.like(0))
    t.result((moved >> 32 if high else moved).to("u32"))


def _shifted_by(
    t: Translator, number: int, low: Operand, high: Operand, right: bool, upper: bool, signed: bool
) -> Value:
    """The word of {high, low} shifted by a known number."""
    def fill() -> Value:
        if right and signed:
            return (t.raw(high).as_type("i32") >> 31).as_type("u32")
        return t.raw(low if right else high).like(0)

    words = [t.raw(low), t.raw(high)]
    place = 32 * upper + (number if right else -number)  # the first bit that is wanted
    index, bit = divmod(place, 32)

    def word(n: int) -> Value:
        return words[n] if n in (0, 1) else (fill() if n > 1 else words[0].like(0))

    if not bit:
        return word(index)
    if index == 1 and right and signed:
        return (words[1].as_type("i32") >> bit).as_type("u32")
    first, second = word(index), word(index + 1)
    if index < -1:
        return first
    if index == -1:
        return second << (32 - bit)
    if index >= 1 and not (right and signed):
        return first >> bit if index == 1 else first
    return first >> bit | second << (32 - bit)


_SELECTORS = {
    1: (0x3210, 0x4321, 0x5432, 0x6543), 2: (0x5670, 0x6701, 0x7012, 0x0123),
    3: (0x0000, 0x1111, 0x2222, 0x3333), 4: (0x3210, 0x3211, 0x3222, 0x3333),
    5: (0x0000, 0x1110, 0x2210, 0x3210), 6: (0x1010, 0x3232, 0x1010, 0x3232),
}
"""Of PRMT's modes F4E, B4E, RC8, ECL, ECR, RC16, by the selector (PTX ISA, prmt)."""


def _prmt(t: Translator, i: Instruction) -> None:
    mode = i.fields.get("prmt", 0)
    a, b, c = (i.operand(token) for token in "abc")
    low, high = t.raw(a), t.raw(c)
    if b.kind == "I":
        t.result(_permuted(low, high, _SELECTORS[mode][b.number & 3] if mode else b.number))
        return
    selector = t.raw(b)
    if mode:
        odd, upper = (selector & 1).differs(0), (selector & 2).differs(0)
        words = [selector.like(word) for word in _SELECTORS[mode]]
        selector = upper.select(odd.select(words[3], words[2]), odd.select(words[1], words[0]))
    both = low.to("u64") | (high.to("u64") << 32)
    total = low.like(0)
    for place in range(4):
        choice = (selector >> 4 * place) & 15
        byte = (both >> ((choice & 7) << 3).to("u64")).to("u32") & 0xFF
        sign = (byte.as_type("i32") << 24 >> 31).as_type("u32") & 0xFF
        total = total | ((choice > 7).select(sign, byte) << 8 * place)
    t.result(total)


def _permuted(low: Value, high: Value, selector: int) -> Value:
    """Bytes of two words by a known selector."""
    choices = [selector >> 4 * place & 15 for place in range(4)]
    for word, first in ((low, 0), (high, 4)):
        if choices == [first, first + 1, first + 2, first + 3]:
            return word
    total = None
    for place, choice in enumerate(choices):
        word, byte = (low, high)[choice >> 2 & 1], choice & 3
        if choice & 8:
            part = (word << 8 * (3 - byte)).as_type("i32") >> 31
            part = part.as_type("u32") & 0xFF << 8 * place
        else:
            moved = word >> 8 * (byte - place) if byte >= place else word << 8 * (place - byte)
            part = moved & 0xFF << 8 * place
        total = part if total is None else total | part
    assert total is not None
    return total


def _count(t: Translator, i: Instruction) -> None:
    t.result(t.inverted("e").intrinsic("ctpop"))


def _reversed(t: Translator, i: Instruction) -> None:
    t.result(t.raw(i.operand("e")).intrinsic("bitreverse"))


def _flo(t: Translator, i: Instruction) -> None:
    """The highest bit that is set (of a negative number: not set); SH: counted from the top."""
    value = t.inverted("e")
    if i.fields["u32"]:
        signed = value.as_type("i32")
        value = (signed ^ (signed >> 31)).as_type("u32")
    leading = value.intrinsic("ctlz", "i1 false")
    none = value.equals(0)
    place = leading if i.fields["sh"] else 31 - leading
    t.result(none.select(0xFFFFFFFF, place))
    t.decide("P81", ~none)


def _sgxt(t: Translator, i: Instruction) -> None:
    value, width = t.raw(i.operand("a")), t.raw(i.operand("b"))
    width = width & 31 if i.fields["w"] else width.min(32)
    spare = 32 - width
    if i.fields["sgxt"]:
        moved = (value << spare).as_type("i32") >> spare
        result = moved.as_type("u32")
    else:
        result = (value << spare) >> spare
    t.result(width.equals(0).select(0, result))


def _bmsk(t: Translator, i: Instruction) -> None:
    """`b` ones from bit `a` on."""
    first, count = t.raw(i.operand("a")), t.raw(i.operand("b"))
    if i.fields["bmskw"]:
        first, count = first & 31, count & 31
    ones = (count < 32).select((count.like(1) << count) - 1, count.like(0xFFFFFFFF))
    t.result((first < 32).select(ones << first, ones.like(0)))


# ---- comparisons and choices ----
def compared(value: Value, kind: int, other: Value) -> Value:
    """F, LT, EQ, LE, GT, NE, GE, T of two integers."""
    if kind in (0, 7):
        return value.build.constant("m1", kind == 7, value.lanes)
    return value._compare(_COMPARE[kind - 1], other)


def _isetp(t: Translator, i: Instruction) -> None:
    sign = _signed(i)
    kind = i.fields["cmp"]
    a, b = (t.raw(i.operand(token), sign + "32") for token in "ab")
    found = compared(a, kind, b)
    if i.fields["ex"]:  # the upper words of longer numbers; p68 compared the lower
        below = t.read("p68")
        if kind in (2, 5):
            found = a.equals(b) & below if kind == 2 else a.differs(b) | below
        elif kind not in (0, 7):
            strict = compared(a, 1 if kind in (1, 3) else 4, b)
            found = strict | a.equals(b) & below
    with_p = t.read("p87")
    t.decide("P81", combine(i.fields["bool"], found, with_p))
    if i.operand("P84").number != PT:
        t.decide("P84", combine(i.fields["bool"], ~found, with_p))


def _imnmx(t: Translator, i: Instruction) -> None:
    sign = _signed(i)
    a, b = (t.raw(i.operand(token), sign + "32") for token in "ab")
    _chosen(t, i, a, b)


def _chosen(t: Translator, i: Instruction, a: Value, b: Value) -> None:
    """The smaller where the predicate holds, else the larger."""
    which = i.operand("p87")
    if which.number == PT:
        t.result((a.max(b) if which.negate else a.min(b)).as_type("u32"))
    else:
        t.result(t.read("p87").select(a.min(b), a.max(b)).as_type("u32"))


def _vimnmx(t: Translator, i: Instruction) -> None:
    """The smaller or larger of two or three numbers, or of each of two halves."""
    tokens = [token for token in "abc" if token in i.row.positions]
    kind = i.fields["vim"]
    given = [t.raw(i.operand(token)) for token in tokens]
    least = t.read("p87")
    if kind < 2:
        words = [value.as_type("ui"[kind] + "32") for value in given]
        t.result(_extreme(least, words).as_type("u32"))
        return
    total = None
    for place in (0, 16):
        halves = [_field(value, place, 16, kind == 3).as_type("i32") for value in given]
        part = (_extreme(least, halves).as_type("u32") & 0xFFFF) << place
        total = part if total is None else total | part
    assert total is not None
    t.result(total)


def _extreme(least: Value, given: list[Value]) -> Value:
    """The smallest of numbers where the predicate holds, else the largest."""
    low = functools.reduce(lambda x, y: x.min(y), given)
    high = functools.reduce(lambda x, y: x.max(y), given)
    return least.select(low, high)


def _viaddmnmx(t: Translator, i: Instruction) -> None:
    sign = "i" if i.fields["addmin"] else "u"
    total = (t.raw(i.operand("a")) + t.source("b")).as_type(sign + "32")
    _chosen(t, i, total, t.raw(i.operand("c"), sign + "32"))


def _iabs(t: Translator, i: Instruction) -> None:
    t.result(t.raw(i.operand("e"), "i32").abs().as_type("u32"))


def _vabsdiff(t: Translator, i: Instruction) -> None:
    sign = _signed(i)
    a, b = (t.raw(i.operand(token), sign + "32") for token in "ab")
    t.result((a.max(b) - a.min(b)).as_type("u32") + t.raw(i.operand("c")))


def _vabsdiff4(t: Translator, i: Instruction) -> None:
    """Of four bytes each: the differences, or (ACC) their sum added to a third number."""
    a, b = t.raw(i.operand("a")), t.raw(i.operand("b"))
    total = t.raw(i.operand("c")) if i.fields["acc"] else a.like(0)
    for place in range(0, 32, 8):
        one, other = (_field(value, place, 8, False) for value in (a, b))
        apart = one.max(other) - one.min(other)
        total = total + (apart if i.fields["acc"] else apart << place)
    t.result(total)


def _sel(t: Translator, i: Instruction) -> None:
    t.result(t.read("p87").select(t.raw(i.operand("a")), t.raw(i.operand("b"))))


def _i2i(t: Translator, i: Instruction) -> None:
    """A signed number, limited to a narrower type."""
    low, high = {0: (0, 255), 1: (-128, 127), 2: (0, 65535), 3: (-32768, 32767)}[i.fields["i2i"]]
    t.result(t.raw(i.operand("e"), "i32").max(low).min(high).as_type("u32"))


# ---- moves ----
def _mov(t: Translator, i: Instruction) -> None:
    t.result(t.raw(i.operand("e")))


def _plop3(t: Translator, i: Instruction) -> None:
    given = [t.read(token) for token in ("p87", "p77", "p68U" if "p68U" in i.row.positions
                                         else "p68")]
    t_lut, other = i.operand("lut").number, i.operand("#16.8").number
    first = table_of_three(t_lut, given)
    second = table_of_three(other, given) if i.operand("P84").number != PT else None
    t.decide("P81", first)
    if second is not None:
        t.decide("P84", second)


SEMANTICS: dict[str, Semantics] = {
    "IADD3": _iadd3, "VIADD": _viadd, "IMAD": _imad, "LEA": _lea, "IDP": _idp, "LOP3": _lop3,
    "SHF": _shf, "PRMT": _prmt, "POPC": _count, "BREV": _reversed, "FLO": _flo, "SGXT": _sgxt,
    "BMSK": _bmsk, "ISETP": _isetp, "IMNMX": _imnmx, "VIMNMX": _vimnmx, "VIMNMX3": _vimnmx,
    "VIADDMNMX": _viaddmnmx, "IABS": _iabs, "VABSDIFF": _vabsdiff, "VABSDIFF4": _vabsdiff4,
    "SEL": _sel, "I2I": _i2i, "MOV": _mov, "PLOP3": _plop3,
}
SEMANTICS |= {  # the same, once for the warp
    f"U{name}": SEMANTICS[name] for name in (
        "IADD3", "IMAD", "LEA", "LOP3", "SHF", "PRMT", "ISETP", "MOV", "SEL", "POPC", "FLO", "BREV",
        "PLOP3",
    )
}
