"""NVIDIA's matrix instructions: products of a warp's fragments, as calls of functions.

PTX ISA, "Matrix Fragments for mma", says which lane holds which element: with g = lane / 4 and
t = lane % 4, lane (g, t) holds of A the rows g and g + 8, of B the column g, both in words that
hold `packed` terms of the sum from t × packed on, and of C the columns 2t and 2t + 1 of those rows.
The order of a sum's terms is ours, as is its rounding: after every term.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from drivers.emulated.simt.sass_decode import RZ, Instruction
from drivers.emulated.simt.sass_narrow import FLOATS, float_of
from drivers.emulated.simt.values import Build, Value

if TYPE_CHECKING:
    from drivers.emulated.simt.sass import Semantics, Translator


@dataclass(frozen=True)
class Shape:
    """What one matrix instruction multiplies."""

    factor: str
    """Of A, and of B where `other` does not say: f16, bf16, tf32, f64, e4m3, e5m2, or i8, u8, i4,
    u4; of single bits `xor` or `and`: what is done with 32 of them before they are counted."""
    result: str
    """f32, f16, f64 or i32."""
    groups: int
    """Words of B."""
    rows: int = 2
    """How many rows of A and C a lane holds."""
    other: str = ""
    saturates: bool = False

    @property
    def name(self) -> str:
        """Of the function."""
        clamp = "_sat" if self.saturates else ""
        return f"mma_{self.result}_{self.factor}_{self.other}_{self.groups}_{self.rows}{clamp}"

    @property
    def packed(self) -> int:
        """Terms in a word."""
        known = {"f16": 2, "bf16": 2, "tf32": 1, "f64": 1, "e4m3": 4, "e5m2": 4, "xor": 1, "and": 1}
        return known.get(self.factor) or 32 // int(self.factor[1:])

    @property
    def word(self) -> str:
        """The type of a word of A and B."""
        return "u64" if self.factor == "f64" else "u32"

    @property
    def held(self) -> str:
        """The type of a word of C."""
        return "u64" if self.result == "f64" else "u32"

    @property
    def results(self) -> int:
        """Words of C."""
        return self.rows if self.result == "f16" else 2 * self.rows


def _term(word: Value, type: str, place: int) -> Value:
    """One term of a word, as the type that sums are made in."""
    if type in ("f64", "tf32"):
        return (word & 0xFFFFE000).as_type("f32") if type == "tf32" else word.as_type("f64")
    if type in ("xor", "and"):
        return word
    if type == "bf16":
        return (word & 0xFFFF0000 if place else word << 16).as_type("f32")
    if type == "f16":
        return (word >> 16 if place else word).to("u16").as_type("f16").to("f32")
    if type.upper() in FLOATS:
        return float_of(word >> 8 * place, FLOATS[type.upper()])
    width = int(type[1:])
    above = word << (32 - width * (place + 1))
    return above.as_type(f"{type[0]}32") >> (32 - width)


def _pick(build: Build, value: Value, lanes: list[int]) -> Value:
    places = ", ".join(f"i32 {lane}" for lane in lanes)
    return build.value(
        f"shufflevector {value.llvm} {value.text}, {value.llvm} poison, <32 x i32> <{places}>",
        value.type, True,
    )


def function(shape: Shape) -> str:
    """The IR of the function: words of A, B and C as arguments, those of D as its result."""
    build = Build(32)
    names = [*(f"a{n}" for n in range(shape.groups * shape.rows)),
             *(f"b{n}" for n in range(shape.groups))]
    given = [Value(build, f"%{name}", shape.word, True) for name in names]
    sums = [Value(build, f"%c{n}", shape.held, True) for n in range(shape.results)]
    head = ", ".join(f"{value.llvm} {value.text}" for value in [*given, *sums])
    a, b = given[: shape.groups * shape.rows], given[shape.groups * shape.rows :]
    totals = _opened(shape, sums)
    start = totals
    if shape.saturates:
        totals = [total.like(0) for total in totals]
    for group in range(shape.groups):
        for t in range(4):
            rows = [_pick(build, a[group * shape.rows + row], [lane & ~3 | t for lane in range(32)])
                    for row in range(shape.rows)]
            columns = [_pick(build, b[group],
                             [4 * (2 * (lane & 3) + column) + t for lane in range(32)])
                       for column in range(2)]
            for place in range(shape.packed):
                left = [_term(row, shape.factor, place) for row in rows]
                right = [_term(one, shape.other or shape.factor, place) for one in columns]
                totals = [
                    _added(shape, total, left[n // 2], right[n % 2])
                    for n, total in enumerate(totals)
                ]
    if shape.saturates:
        totals = [first.as_type("i32").intrinsic("sadd.sat", total.as_type("i32"))
                  for first, total in zip(start, totals, strict=True)]
    texts = _closed(shape, totals)
    vector = build.spell(shape.held)
    type = "{" + ", ".join([vector] * len(texts)) + "}"
    before = "poison"
    for n, value in enumerate(texts):
        before = build.emit(f"insertvalue {type} {before}, {vector} {value.text}, {n}")
    body = "\n".join(build.lines)
    return "\n".join([
        *sorted(build.declarations),
        f"define internal {type} @{shape.name}({head}) noinline {{",
        body, f"  ret {type} {before}", "}",
    ])


def _opened(shape: Shape, words: list[Value]) -> list[Value]:
    """C as numbers: row by row, two columns each."""
    if shape.result != "f16":
        return [word.as_type({"f32": "f32", "f64": "f64", "i32": "u32"}[shape.result])
                for word in words]
    return [_term(word, "f16", place) for word in words for place in range(2)]


def _closed(shape: Shape, totals: list[Value]) -> list[Value]:
    if shape.result != "f16":
        return [total.as_type(shape.held) for total in totals]
    bits = [total.to("f16").as_type("u16").to("u32") for total in totals]
    return [low | high << 16 for low, high in zip(bits[::2], bits[1::2], strict=True)]


def _added(shape: Shape, total: Value, left: Value, right: Value) -> Value:
    if shape.factor in ("xor", "and"):
        both = left ^ right if shape.factor == "xor" else left & right
        return total + both.intrinsic("ctpop")
    if total.is_float:
        return left.fma(right, total)
    return total + left.as_type("u32") * right.as_type("u32")


# ---- the instructions ----
def _multiply(t: Translator, i: Instruction, shape: Shape) -> None:
    counts = (shape.groups * shape.rows, shape.groups, shape.results)
    words: list[Value] = []
    for token, count, type in zip("abc", counts, (shape.word, shape.word, shape.held), strict=True):
        operand, step = i.operand(token), 2 if type == "u64" else 1
        for n in range(count):
            if operand.number == RZ:
                words.append(t.constant(type, 0, True))
            elif step == 2:
                words.append(t.register_pair(operand.number + 2 * n))
            else:
                words.append(t.register(operand.number + n))
    text = function(shape)
    for line in text.split("\n"):
        if line.startswith("declare"):
            t.declarations.add(line)
    t.functions[shape.name] = "\n".join(
        line for line in text.split("\n") if not line.startswith("declare")
    )
    vector = t.spell(shape.held)
    type = "{" + ", ".join([vector] * shape.results) + "}"
    given = ", ".join(f"{word.llvm} {word.text}" for word in words)
    both = t.emit(f"call {type} @{shape.name}({given})")
    d, step = i.operand("d").number, 2 if shape.held == "u64" else 1
    for n in range(shape.results):
        value = t.value(f"extractvalue {type} {both}, {n}", shape.held, True)
        t.set_register(d + step * n, value)


def _hmma(t: Translator, i: Instruction) -> None:
    known = i.row.modifiers_of(i.arch)
    size, _, result = known["hmma"].texts[i.fields["hmma"]].partition(".")
    kind = known["hmmatype"].texts[i.fields["hmmatype"]].lower() or "f16"
    terms = {"1688": 8, "16816": 16, "1684": 4}[size]
    packed = 1 if kind == "tf32" else 2
    _multiply(t, i, Shape(kind, result.lower(), terms // (4 * packed)))


def _imma(t: Translator, i: Instruction) -> None:
    known = i.row.modifiers_of(i.arch)
    fields = [name for name in i.fields if name.startswith("imma_") and name != "imma_sat"]
    types = [known[name].texts[i.fields[name]].lower().replace("s", "i") for name in fields]
    size = i.row.words[0][1:]
    rows, terms = (1, int(size[2:])) if size.startswith("88") else (2, int(size[3:]))
    packed = 32 // int(types[0][1:])
    _multiply(t, i, Shape(types[0], "i32", terms // (4 * packed), rows, types[1],
                          bool(i.fields["imma_sat"])))


def _dmma(t: Translator, i: Instruction) -> None:
    if any(i.operand(token).negate or i.operand(token).absolute for token in "abc"):
        raise t.refuse()
    _multiply(t, i, Shape("f64", "f64", 1, rows=1))


def _qmma(t: Translator, i: Instruction) -> None:
    known = i.row.modifiers_of(i.arch)
    names = ("qmma", "qmma_acc", "qmma_a", "qmma_b")
    size, result, a, b = (known[name].texts[i.fields[name]].lower() for name in names)
    _multiply(t, i, Shape(a, result, int(size[3:]) // 16, other=b))


def _bmma(t: Translator, i: Instruction) -> None:
    known = i.row.modifiers_of(i.arch)
    size, operation = (known[name].texts[i.fields[name]].lower() for name in ("bmma", "bmma_op"))
    rows, bits = (1, int(size[2:])) if size.startswith("88") else (2, int(size[3:]))
    _multiply(t, i, Shape(operation, "i32", bits // 128, rows))


SEMANTICS: dict[str, Semantics] = {
    "HMMA": _hmma, "IMMA": _imma, "DMMA": _dmma, "QMMA": _qmma, "BMMA": _bmma,
}
