"""NVIDIA's memory instructions → calls of the helpers, and accesses in the code."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, NamedTuple

from drivers.emulated.simt import helpers, layout, ordered, patterns
from drivers.emulated.simt.access import Where
from drivers.emulated.simt.sass_decode import RZ, URZ, Instruction, Operand
from drivers.emulated.simt.sass_registers import BANK, BANK_REGISTERS, VECTOR, WINDOWS
from drivers.emulated.simt.values import Value

if TYPE_CHECKING:
    from drivers.emulated.simt.sass import Semantics, Translator

GLOBAL, SHARED, LOCAL = layout.GLOBAL, layout.LOCAL, layout.SCRATCH
WINDOW_BITS = 24
"""Shared and local memory have addresses of so many bits; their windows in generic ones too."""
_ALL = (GLOBAL, SHARED, LOCAL)
_SPACES: dict[str, tuple[int, ...]] = {
    "LDG": (GLOBAL,), "STG": (GLOBAL,), "ATOMG": (GLOBAL,), "RED": (GLOBAL,), "REDG": (GLOBAL,),
    "LDS": (SHARED,), "STS": (SHARED,), "ATOMS": (SHARED,), "LDSM": (SHARED,), "STSM": (SHARED,),
    "LDL": (LOCAL,), "STL": (LOCAL,), "LD": _ALL, "ST": _ALL, "ATOM": _ALL, "LDC": (GLOBAL,),
    "LDGSTS": (GLOBAL, SHARED),
}
_KINDS = ("u8", "i8", "u16", "i16", "b32", "b64", "b128")  # by SIZE
_STORED = ("b8", "b8", "b16", "b16", "b32", "b64", "b128")
_SMALL_STEPS = 27  # bits of an index, so that 16 times that has less than 32
_NONE = 2 * 3  # the number of no pattern (`patterns`)


def kinds_of(instruction: Instruction) -> tuple[int, ...]:
    """Which memories an instruction may access: it gets a slot for each."""
    return _SPACES.get(instruction.name, ())


class _Place(NamedTuple):
    """Where in one memory the lanes' accesses are: addresses (u64) or a base and offsets (u32)."""

    slot: int
    constant: int
    addresses: Value | None = None
    base: Value | None = None
    offsets: Value | None = None
    lanes: Value | None = None
    """Which lanes it is about; None for all that the guard admits."""

    def whole(self, t: Translator) -> Value:
        """The address of each lane."""
        if self.addresses is not None:
            known = t.sums.get(self.addresses.text)
            if known is not None:  # made anew where it is the exception: else nobody needs it
                return known.whole() + self.constant
            return self.addresses + self.constant if self.constant else self.addresses
        assert self.base is not None and self.offsets is not None
        base = self.base + self.constant if self.constant else self.base
        return t.splat(base) + self.offsets.to("u64")


# ---- where ----
def _register(t: Translator, operand: Operand) -> Value:
    """The address register of an operand as u64."""
    return t.register_pair(operand.number) if operand.wide else (
        t.register(operand.number).to("u64")
    )


def _in_global(t: Translator, operand: Operand) -> _Place:
    joined = operand.uniform != URZ and not operand.described
    if joined and not operand.wide:
        base = t.uniform(operand.uniform, wide=True)
        return _Place(0, operand.offset, base=base, offsets=t.register(operand.number))
    addresses = _register(t, operand)
    if joined:
        addresses = addresses + t.splat(t.uniform(operand.uniform, wide=True))
    return _Place(0, operand.offset, addresses=addresses)


def _offsets(t: Translator, operand: Operand) -> Value:
    """The lanes' addresses in shared or local memory without the constant."""
    offsets = t.register(operand.number)
    if operand.scale > 1:
        offsets = offsets * operand.scale
    if operand.uniform != URZ:
        offsets = offsets + t.splat(t.uniform(operand.uniform))
    return offsets


def _in_shared(t: Translator, operand: Operand, slot: int = 0) -> _Place:
    return _Place(slot, operand.offset, base=t.field("LDS"), offsets=_offsets(t, operand))


def _local_base(t: Translator) -> tuple[Value, Value]:
    """Where local memory would begin if it had all its addresses, and what a lane has of it."""
    size = t.field("SCRATCH_LANE_BYTES")
    return t.field("SCRATCH") + size - (1 << WINDOW_BITS), size


def _in_local(t: Translator, operand: Operand) -> _Place:
    base, size = _local_base(t)
    lanes = t.splat(size.to("u32")) * t.each_lane("u32", range(32))
    return _Place(0, operand.offset, base=base, offsets=_offsets(t, operand) + lanes)


def _places(t: Translator, i: Instruction, token: str) -> list[_Place]:
    """In each memory that an instruction may access."""
    operand = i.operand(token)
    spaces = _SPACES[i.name]
    if spaces == (GLOBAL,):
        return [_in_global(t, operand)]
    if spaces == (SHARED,):
        return [_in_shared(t, operand)]
    if spaces == (LOCAL,):
        return [_in_local(t, operand)]
    addresses = _in_global(t, operand).whole(t)
    window, low = addresses >> WINDOW_BITS, addresses & (1 << WINDOW_BITS) - 1
    shared, local = (
        window.equals(t.splat(t.scalar_pair(WINDOWS + 2 * n) >> WINDOW_BITS)) for n in range(2)
    )
    base, size = _local_base(t)
    own = t.splat(size) * t.each_lane("u64", range(32)) + t.splat(base)
    return [
        _Place(0, 0, addresses=addresses, lanes=~(shared | local)),
        _Place(1, 0, addresses=t.splat(t.field("LDS")) + low, lanes=shared),
        _Place(2, 0, addresses=own + low, lanes=local),
    ]


def _address_token(i: Instruction) -> str:
    return next(token for token in i.row.positions if token in "MGmnst")


def _lanes(t: Translator, place: _Place) -> Value | None:
    """Which lanes access a place; None for all that run."""
    if place.lanes is None or t.guard is None:
        return t.guard if place.lanes is None else place.lanes
    return place.lanes & t.guard


# ---- accesses in the code, where all lanes take part ----
def _simple(t: Translator, place: _Place) -> bool:
    return t.exec_full and t.guard is None and place.lanes is None


def _group(t: Translator, place: _Place, size: int, writes: bool) -> ordered.Group:
    """What accesses to one place, which differ in a constant only, are tested with."""
    if place.addresses is None:
        assert place.base is not None and place.offsets is not None
        base, pattern = place.base, t._pattern(place.offsets, size, 0)
        forms = ordered.FORMS if _SPACES[t.now.name] == (GLOBAL,) else ordered.LOCAL_FORMS
    else:
        base, pattern = _wide_pattern(t, place.addresses, size)
        forms = ordered.FORMS
    key = base.text, pattern, size, writes
    found = t.groups.get(key)
    if found is None:
        found = t.groups[key] = ordered.Group(
            t, t._slot(place.slot), base.text, pattern, size, place.constant, forms
        )
    return found


def _wide_pattern(t: Translator, addresses: Value, size: int) -> tuple[Value, ordered.Pattern]:
    """How addresses of 64 bits lie, as offsets from the first lane's."""
    key = (addresses.text, size, -1)
    if addresses.text not in t.bases:
        t.bases[addresses.text] = _distances(t, addresses)
    base, offsets, near = t.bases[addresses.text]
    if key not in t.patterns:
        found = ordered.find(t, size, offsets.text, lambda: t.emit(
            f"call {patterns.PATTERN} {t.helper_address(f'pattern_{size}')}"
            f"({helpers.VECTOR} {offsets.text}) cold"
        ))
        number = t.emit(f"select i1 {near.text}, i32 {found.number}, i32 {_NONE}")
        t.patterns[key] = replace(found, number=number)
    return base, t.patterns[key]


def _distances(t: Translator, addresses: Value) -> tuple[Value, Value, Value]:
    """The first lane's address, all lanes' distances from it (u32), and whether these are true."""
    known = t.sums.get(addresses.text)
    if known is None:
        first = _first(addresses)
        apart = addresses - t.splat(first)
        far = t.packed((apart >> 32).differs(0))
        return first, apart.to("u32"), far.equals(0)
    steps_from_0 = known.step.as_type("u32")
    first = _first(steps_from_0)
    steps = steps_from_0 - t.splat(first)
    far = t.packed((steps >> _SMALL_STEPS).differs(0))
    start = known.base + (first.as_type("i32").to("i64") * known.factor).as_type("u64")
    return start, steps * known.factor, far.equals(0)


def _first(value: Value) -> Value:
    text = f"extractelement {value.llvm} {value.text}, i32 0"
    return value.build.value(text, value.type, False)


def _load(t: Translator, kind: str, place: _Place) -> list[Value]:
    """The registers of a load."""
    results = ["u32"] * helpers.LOADS[kind][1]
    if not _simple(t, place):
        form, where = _where(place, t)
        return t._call(f"load_{kind}_{form}", results, where, _lanes(t, place), place.slot)
    group = _group(t, place, helpers.LOADS[kind][0], False)
    slot = t._slot(place.slot)

    def slowly() -> list[str]:
        form, where = _where(place, t)
        given = f"ptr %context, ptr {slot}, i32 -1, "
        given += ", ".join(f"{value.llvm} {value.text}" for value in where)
        return t._helper(f"load_{kind}_{form}_full", given, results)

    return [
        Value(t, text, "u32", True)
        for text in ordered.load(t, kind, group, place.constant, slowly)
    ]


def _where(place: _Place, t: Translator) -> tuple[str, list[Value]]:
    """A helper's form, and its arguments that say where."""
    if place.addresses is not None:
        return "address", [place.whole(t)]
    assert place.base is not None and place.offsets is not None
    where = Where.offset(place.base, place.constant, place.offsets)
    return where.form, where.arguments


def _store(t: Translator, kind: str, place: _Place, data: list[Value]) -> None:
    if not _simple(t, place):
        form, where = _where(place, t)
        t._call(f"store_{kind}_{form}", [], [*where, *data], _lanes(t, place), place.slot)
        return
    t.settle()
    group = _group(t, place, helpers.STORES[kind][0], True)
    slot = t._slot(place.slot)

    def slowly() -> None:
        form, where = _where(place, t)
        given = f"ptr %context, ptr {slot}, i32 -1, "
        given += ", ".join(f"{value.llvm} {value.text}" for value in [*where, *data])
        t._helper(f"store_{kind}_{form}_full", given, [])

    ordered.store(t, kind, group, place.constant, [value.text for value in data], slowly)


# ---- instructions ----
def _size(i: Instruction) -> int:
    return i.fields["size"]


def _loads(t: Translator, i: Instruction) -> None:
    kind = _KINDS[_size(i)]
    places = _places(t, i, _address_token(i))
    d, count = i.operand("d").number, helpers.LOADS[kind][1]
    if d == RZ:
        _loaded(t, kind, places)
    elif len(places) == 1 and _simple(t, places[0]):
        pc, now = t.pc, i

        def emit() -> list[Value]:
            t.pc, t.now, later = pc, now, (t.pc, t.now, t.guard)
            t.guard = None
            values = _load(t, kind, places[0])
            t.pc, t.now, t.guard = later
            return values

        _group(t, places[0], helpers.LOADS[kind][0], False).include(places[0].constant)
        t.defer(VECTOR + d, count, emit)
    else:
        for j, value in enumerate(_loaded(t, kind, places)):
            t.set_register(d + j, value)


def _loaded(t: Translator, kind: str, places: list[_Place]) -> list[Value]:
    """A load from whichever memory each lane means."""
    result = _load(t, kind, places[0])
    for place in places[1:]:
        assert place.lanes is not None
        other = _load(t, kind, place)
        result = [place.lanes.select(b, a) for a, b in zip(result, other, strict=True)]
    return result


def _stores(t: Translator, i: Instruction) -> None:
    kind = _STORED[_size(i)]
    token = "y" if "y" in i.row.positions else "x"
    data = _data(t, i.operand(token), helpers.STORES[kind][1])
    for place in _places(t, i, _address_token(i)):
        _store(t, kind, place, data)


def _data(t: Translator, operand: Operand, count: int) -> list[Value]:
    if operand.number == RZ:
        return [t.register(RZ)] * count
    return [t.register(operand.number + j) for j in range(count)]


def _ldc(t: Translator, i: Instruction) -> None:
    k, size = i.operand("k"), i.fields["bank_size"]
    kind = _KINDS[size]
    if t.now.row.uniform or k.uniform == RZ:
        width = (8, 8, 16, 16, 32, 64)[size]
        place = t.constant("u64", k.offset, False)
        if width < 32:
            value = t.constant_at(k.number, place, width // 8, 1)
            value = value.as_type(kind[0] + str(width)).to(kind[0] + "32").as_type("u32")
        else:
            value = t.constant_word(k.number, k.offset, width // 8)
        if i.row.uniform:
            t.set_uniform(i.operand("d").number, value)
        else:
            t.result(t._everywhere(value))
        return
    first = BANK + BANK_REGISTERS * k.number
    offsets = t.register(k.uniform) + k.offset
    within = offsets.to("u64") + helpers.LOADS[kind][0] <= t.splat(t.scalar(first + 2)).to("u64")
    place_ = _Place(0, 0, base=t.scalar_pair(first), offsets=offsets, lanes=within)
    for j, value in enumerate(_load(t, kind, place_)):
        t.set_register(i.operand("d").number + j, within.select(value, value.like(0)))


_OPERATIONS = ("add", "min", "max", "inc", "dec", "and", "or", "xor", "swap")


def _atomics(t: Translator, i: Instruction) -> None:
    operation, width = _operation(t, i)
    read = t.register_pair if width == 64 else t.register
    tokens = [token for token in ("x", "y") if token in i.row.positions]
    data = [read(i.operand(token).number) for token in tokens]
    if operation == "cmpswap":
        data.reverse()  # what is compared stands first
    old: Value | None = None
    t.settle()
    for place in _places(t, i, _address_token(i)):
        (found,) = t._call(
            f"atomic_{operation}_{width}", [f"u{width}"], [place.whole(t), data[0], data[-1]],
            _lanes(t, place), place.slot,
        )
        old = found if old is None or place.lanes is None else place.lanes.select(found, old)
    if i.fields.get("cas") and old is not None:  # CAST: whether it has swapped
        old = old.equals(data[-1]).to(old.type)
    if "d" in i.row.positions and old is not None:
        t.result(old)
    t.decide("P81", t.constant("m1", 1, True))


def _operation(t: Translator, i: Instruction) -> tuple[str, int]:
    """The helper's word, and how many bits it is about."""
    fields, words = i.fields, i.row.words
    known = i.row.modifiers_of(i.arch)
    if ".CAS" in words or "cas" in fields:
        return "cmpswap", 64 if fields["cas_size"] == 2 else 32
    type_field = next(f for f in ("atype", "atype90", "ftype90", "shared") if f in fields)
    type = known[type_field].texts[fields[type_field]]
    name = _OPERATIONS[fields["atomic" if "atomic" in fields else "red"]] if (
        "atomic" in fields or "red" in fields) else "add"
    if type.startswith(("F32", "F64", "F16x2", "BF16x2")):
        if name != "add":
            raise t.refuse()
        if "F16x2" in type:
            return "pk_add_bf" if type[0] == "B" else "pk_add", 32
        return "add_f", int(type[1:3])
    if name in ("min", "max"):
        name += "_i" if type.startswith("S") else "_u"
    return name, 64 if type.endswith("64") else 32


def _matrix_addresses(t: Translator, operand: Operand, lanes: list[int], step: list[int]) -> Value:
    """Each lane's address by a lane that holds a row's, and bytes further."""
    rows = _offsets(t, operand)
    places = t.each_lane("u32", lanes)
    text = f"shufflevector {rows.llvm} {rows.text}, {rows.llvm} poison, {rows.llvm} {places.text}"
    return t.value(text, "u32", True) + t.each_lane("u32", step)


def _ldsm(t: Translator, i: Instruction) -> None:
    """Matrices of 8 × 8 halves from shared memory; lanes 8n … 8n + 7 hold the nth's rows."""
    operand, d = i.operand("t"), i.operand("d").number
    base = t.field("LDS")
    results = []
    for n in range(1 << i.fields["ldsm"]):
        if not i.fields["trans"]:
            lanes = [8 * n + (lane >> 2) for lane in range(32)]
            offsets = _matrix_addresses(t, operand, lanes, [4 * (lane & 3) for lane in range(32)])
            place = _Place(0, operand.offset, base=base, offsets=offsets)
            results.append(_load(t, "b32", place)[0])
            continue
        parts = []
        for half in range(2):
            lanes = [8 * n + 2 * (lane & 3) + half for lane in range(32)]
            offsets = _matrix_addresses(t, operand, lanes, [2 * (lane >> 2) for lane in range(32)])
            place = _Place(0, operand.offset, base=base, offsets=offsets)
            parts.append(_load(t, "u16", place)[0])
        results.append(parts[0] | parts[1] << 16)
    for n, value in enumerate(results):
        t.set_register(d + n, value)


def _stsm(t: Translator, i: Instruction) -> None:
    """The same matrices to shared memory."""
    operand, base = i.operand("s"), t.field("LDS")
    for n in range(1 << i.fields["ldsm"]):
        word = t.register(i.operand("x").number + n)
        if not i.fields["trans"]:
            lanes = [8 * n + (lane >> 2) for lane in range(32)]
            offsets = _matrix_addresses(t, operand, lanes, [4 * (lane & 3) for lane in range(32)])
            _store(t, "b32", _Place(0, operand.offset, base=base, offsets=offsets), [word])
            continue
        for half in range(2):
            lanes = [8 * n + 2 * (lane & 3) + half for lane in range(32)]
            offsets = _matrix_addresses(t, operand, lanes, [2 * (lane >> 2) for lane in range(32)])
            place = _Place(0, operand.offset, base=base, offsets=offsets)
            _store(t, "b16", place, [word >> 16 if half else word])


def _ldgsts(t: Translator, i: Instruction) -> None:
    """From global to shared memory; here at once."""
    size = i.fields["copy_size"]
    kind = _KINDS[size]
    source, target = _in_global(t, i.operand("g")), _in_shared(t, i.operand("D"), slot=1)
    wanted = t.read("p87")
    always = i.operand("p87")
    if always.number == 7 and not always.negate:
        values = _load(t, kind, source)
    else:
        found = _load(t, kind, source._replace(lanes=wanted))
        values = [wanted.select(value, value.like(0)) for value in found]
        if not i.fields["zfill"]:
            target = target._replace(lanes=wanted)
    _store(t, _STORED[size], target, values)


def _qspc(t: Translator, i: Instruction) -> None:
    """Whether a generic address is one of global, local or shared memory, or of another block's
    shared memory, which no cluster gives."""
    kind = i.fields["qspc"]
    window = _in_global(t, i.operand("M")).whole(t) >> WINDOW_BITS
    shared, local = (
        window.equals(t.splat(t.scalar_pair(WINDOWS + 2 * n) >> WINDOW_BITS)) for n in range(2)
    )
    found = (~(shared | local), local, shared, t.constant("m1", 0, True))[kind]
    t.decide("P81", found)
    if i.operand("d").number != RZ:
        t.result(found.to("u32"))


SEMANTICS: dict[str, Semantics] = {
    **dict.fromkeys(("LDG", "LDS", "LDL", "LD"), _loads),
    **dict.fromkeys(("STG", "STS", "STL", "ST"), _stores),
    **dict.fromkeys(("ATOMG", "ATOMS", "ATOM", "RED", "REDG"), _atomics),
    "LDC": _ldc, "ULDC": _ldc, "LDSM": _ldsm, "STSM": _stsm, "LDGSTS": _ldgsts, "QSPC": _qspc,
}
