"""NVIDIA's instructions that move values between the lanes of a warp.

A lane outside the guard gives what its register happens to hold: PTX leaves it undefined.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from drivers.emulated.simt.amd_cross import permuted
from drivers.emulated.simt.sass_decode import RZ, Instruction
from drivers.emulated.simt.sass_registers import BARRIER
from drivers.emulated.simt.sass_special import first_lane
from drivers.emulated.simt.values import Value

if TYPE_CHECKING:
    from drivers.emulated.simt.sass import Semantics, Translator

_LANES = range(32)


def shuffled(t: Translator, value: Value, lanes: list[int]) -> Value:
    """Each lane's value is that of another, which is known."""
    places = t.each_lane("u32", lanes)
    given = f"{value.llvm} {value.text}, {value.llvm} poison"
    return t.value(f"shufflevector {given}, {places.llvm} {places.text}", value.type, True)


def _amounts(t: Translator, i: Instruction) -> tuple[int | Value, int | Value]:
    """Which lane, and how the warp is cut: numbers where they are known."""
    positions = i.row.positions
    lane: int | Value = (
        i.operand("#53.5").number if "#53.5" in positions else t.raw(i.operand("x"))
    )
    cut: int | Value = (
        i.operand("#40.13").number if "#40.13" in positions else t.raw(i.operand("y"))
    )
    for token in ("x", "y"):
        if token in positions and i.operand(token).number == RZ:
            lane, cut = (0, cut) if token == "x" else (lane, 0)
    return lane, cut


def _shfl(t: Translator, i: Instruction) -> None:
    """(PTX ISA, shfl.sync: which lane is read, and whether it lies in range.)"""
    value, mode = t.raw(i.operand("a")), i.fields["shfl"]
    lane, cut = _amounts(t, i)
    if isinstance(lane, int) and isinstance(cut, int):
        sources, inside = _known_sources(mode, lane, cut)
        t.result(shuffled(t, value, sources))
        t.decide("P81", t.each_lane("m1", inside))
        return
    own = t.each_lane("u32", _LANES)

    def each(number: int | Value) -> Value:
        return number if isinstance(number, Value) else t.constant("u32", number, True)

    mask, clamp, amount = (each(cut) >> 8) & 31, each(cut) & 31, each(lane) & 31
    first = own & mask
    last = first | (clamp & ~mask)
    place = (first | (amount & ~mask), own - amount, own + amount, own ^ amount)[mode]
    signed = place.as_type("i32")
    found = signed >= last.as_type("i32") if mode == 1 else signed <= last.as_type("i32")
    t.result(permuted(t, value, found.select(place, own)))
    t.decide("P81", found)


def _known_sources(mode: int, amount: int, cut: int) -> tuple[list[int], list[bool]]:
    mask, clamp = cut >> 8 & 31, cut & 31
    sources, inside = [], []
    for own in _LANES:
        last = own & mask | clamp & ~mask
        place = (own & mask | amount & ~mask, own - amount, own + amount, own ^ amount)[mode]
        good = place >= last if mode == 1 else place <= last
        sources.append(place if good else own)
        inside.append(good)
    return sources, inside


def _vote(t: Translator, i: Instruction) -> None:
    given = t.packed(t.read("p87"))
    active = t.active()
    exec = t.constant("u32", 0xFFFFFFFF, False) if active is None else t.active_bits()
    ballot = given & exec
    name = "d" if "d" in i.row.positions else "U"
    operand = i.operand(name)
    everyone = (ballot.equals(exec), ballot.differs(0),
                ballot.equals(exec) | ballot.equals(0))[i.fields["vote"]]
    if name == "U":
        t.set_uniform(operand.number, ballot)
        if i.operand("P81u").number != 7:
            t.set_predicate(i.operand("P81u"), everyone)
    else:
        t.set_register(operand.number, t.splat(ballot))
        t.decide("P81", t.splat(everyone))


def _redux(t: Translator, i: Instruction) -> None:
    name, sign = i.fields["redux"], "i" if i.fields["s32"] else "u"
    value = t.raw(i.operand("a"))
    least, most = (0x80000000, 0x7FFFFFFF) if sign == "i" else (0, 0xFFFFFFFF)
    neutral = {0: 0xFFFFFFFF, 4: most, 5: least}.get(name, 0)
    active = t.active()
    if active is not None:
        value = active.select(value, value.like(neutral))
    letter = "s" if sign == "i" else "u"
    function = ("and", "or", "xor", "add", f"{letter}min", f"{letter}max")[name]
    t.declarations.add(f"declare i32 @llvm.vector.reduce.{function}.v32i32(<32 x i32>)")
    total = t.value(
        f"call i32 @llvm.vector.reduce.{function}.v32i32({value.llvm} {value.text})", "u32", False
    )
    t.set_uniform(i.operand("U").number, total)


def _match(t: Translator, i: Instruction) -> None:
    operand = i.operand("a")
    value = t.register_pair(operand.number) if i.fields["match64"] else t.register(operand.number)
    active = t.active_bits()
    total = t.constant("u32", 0, True)
    for lane in _LANES:
        one = t.value(f"extractelement {value.llvm} {value.text}, i32 {lane}", value.type, False)
        present = (active >> lane) & 1
        equal = value.equals(t.splat(one)).to("u32") & t.splat(present)
        total = total | (equal << lane)
    if i.fields["match"]:  # any
        t.result(total)
        return
    everyone = total.equals(t.splat(active))
    t.result(everyone.select(total, total.like(0)))
    t.decide("P81", everyone)


def _movm(t: Translator, i: Instruction) -> None:
    """A matrix of 8 × 8 halves, a row in four lanes, turned over."""
    if i.fields["movm"]:
        raise t.refuse()
    value = t.raw(i.operand("a"))
    parts = []
    for half in range(2):
        lanes = [4 * (2 * (lane & 3) + half) + (lane >> 3) for lane in _LANES]
        word = shuffled(t, value, lanes)
        odd = t.each_lane("m1", ((lane >> 2) & 1 for lane in _LANES))
        parts.append(odd.select(word >> 16, word & 0xFFFF))
    t.result(parts[0] | parts[1] << 16)


def _elect(t: Translator, i: Instruction) -> None:
    """The first lane of those that run is chosen."""
    bits = t.active_bits()
    first = bits.intrinsic("cttz", "i1 false")
    t.set_uniform(i.operand("U").number, first)
    t.decide("P81", t.each_lane("u32", _LANES).equals(t.splat(first)))


# ---- convergence barriers: registers with the lanes that are to meet ----
def _bssy(t: Translator, i: Instruction) -> None:
    t.set_scalar(BARRIER + i.operand("B16").number, t.active_bits())


def _break(t: Translator, i: Instruction) -> None:
    """The lanes will not come to the meeting."""
    index = BARRIER + i.operand("B16").number
    t.set_scalar(index, t.scalar(index) & ~t.active_bits())


def _bmov(t: Translator, i: Instruction) -> None:
    index = BARRIER + i.operand("B24").number
    if "x" in i.row.positions:
        t.set_scalar(index, first_lane(t, t.raw(i.operand("x"))))
        return
    t.result(t.splat(t.scalar(index)))
    if i.fields["clear"]:
        t.set_scalar(index, t.constant("u32", 0, False))


SEMANTICS: dict[str, Semantics] = {
    "SHFL": _shfl, "VOTE": _vote, "VOTEU": _vote, "REDUX": _redux, "MATCH": _match,
    "MOVM": _movm, "ELECT": _elect, "BSSY": _bssy, "BREAK": _break, "BMOV": _bmov,
}
