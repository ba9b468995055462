"""AMD machine code → instructions: the memory formats."""

from __future__ import annotations

from collections.abc import Callable

from drivers.emulated.simt.amd_bits import NULL, Fields, Words
from drivers.emulated.simt.cdna_bits import FIRST_ACCUMULATOR
from drivers.emulated.simt.instruction import Instruction, Operand
from drivers.emulated.simt.rdna_bits import RDNA2

_CACHE = ("glc", "slc", "dlc", "scc", "sc0", "nt", "sc1", "th", "scope", "lds", "tfe")


def _data_type(name: str) -> str:
    """The type of the data that a memory instruction moves, as registers hold it."""
    if name.endswith("_block"):
        return "b1024"
    words = [w for w in name.split("_") if w[1:].isdigit() and w[0] in "bfiu"]
    word = words[-1] if words else "b32"
    if word[0] == "d" or word == "b16" or word[1:] in ("8", "16"):
        return "b32"
    return word


def _twice(type: str) -> str:
    return f"b{2 * int(type[1:])}"


def _signed(value: int, bits: int) -> int:
    return value - (1 << bits) if value >> bits - 1 else value


def _data(f: Fields, field: str, type: str) -> Operand:
    """A register for data, which CDNA has of two kinds."""
    return Operand("v", f[field] + FIRST_ACCUMULATOR * f.get("acc", 0), type)


def _returns(f: Fields) -> bool:
    """Whether an atomic operation gives what was there before."""
    return bool(f.get("glc", f.get("sc0", f.get("th", 0) & 1)))


def _cache(f: Fields) -> Fields:
    """What says how caches and counters take part."""
    return {name: f[name] for name in _CACHE if name in f}


# ---- scalar loads ----
def _smem(words: Words, f: Fields) -> Instruction:
    name = words.name("SMEM", f["op"])
    bits = 24 if "th" in f else 21
    fields = {"offset": _signed(f["offset"], bits), **_cache(f)}
    if name.endswith(("_inv", "_wb", "_vol")):
        return Instruction(words.pc, 0, "SMEM", name)
    if name in ("s_memtime", "s_memrealtime"):
        return Instruction(words.pc, 0, "SMEM", name, (words.scalar(f["sdata"], "b64"),))
    if "soe" in f:  # GFX9: a constant, a register, or with `soe` both
        if not f["imm"] and not f["soe"]:
            f["soffset"], f["soe"] = f["offset"] & 127, 1
        fields["offset"] *= f["imm"]
        fields["imm"] = f["imm"]
    soffset = words.scalar(f["soffset"], "b32") if f.get("soe", 1) else Operand("s", NULL, "b32")
    if name.endswith("_pc_rel"):
        fields["imm"] = f["sdata"]
        return Instruction(words.pc, 0, "SMEM", name, (), (soffset,), fields)
    base = words.scalar(f["sbase"] * 2, "b128" if "buffer" in name else "b64")
    if "prefetch" in name or "probe" in name:
        fields["imm"] = f["sdata"]
        return Instruction(words.pc, 0, "SMEM", name, (), (base, soffset), fields)
    type = _data_type(name)
    return Instruction(
        words.pc, 0, "SMEM", name, (words.scalar(f["sdata"], type),), (base, soffset), fields
    )


# ---- local memory ----
def _ds(words: Words, f: Fields) -> Instruction:
    if f.get("gds"):
        words.refuse("uses GDS, which compute kernels do not have")
    name = words.name("DS", f["op"])
    if name == "ds_nop":
        return Instruction(words.pc, 0, "DS", name)
    fields = {"offset0": f["offset0"], "offset1": f["offset1"]}
    if "2addr" not in name:
        fields = {"offset": f["offset0"] | f["offset1"] << 8}
    type = "b32" if "_pk_" in name else _data_type(name)
    address = Operand("v", f["addr"], "b32")
    data, other, result = (_data(f, field, type) for field in ("data0", "data1", "vdst"))
    both = result._replace(type=_twice(type))
    if name in ("ds_consume", "ds_append") or name.startswith("ds_load_addtid"):
        return Instruction(words.pc, 0, "DS", name, (result,), (), fields)
    if name.startswith("ds_store_addtid"):
        return Instruction(words.pc, 0, "DS", name, (), (data,), fields)
    if name.startswith("ds_load_2addr"):
        return Instruction(words.pc, 0, "DS", name, (both,), (address,), fields)
    if name.startswith(("ds_load", "ds_swizzle")):
        return Instruction(words.pc, 0, "DS", name, (result,), (address,), fields)
    returns = "_rtn_" in name or name in ("ds_permute_b32", "ds_bpermute_b32")
    two = any(part in name for part in ("2addr", "cmpst", "mskor", "wrap"))
    source = (address, data, other) if two else (address, data)
    dst = (both if "2addr" in name else result,) if returns else ()
    return Instruction(words.pc, 0, "DS", name, dst, source, fields)


# ---- flat, global and scratch ----
def _flat(words: Words, f: Fields) -> Instruction:
    segment = f["seg"]
    if segment > 2:
        words.refuse("names segment 3")
    if f.get("lds"):
        words.refuse("loads into LDS, which is not translated yet")
    words.format = format = ("FLAT", "SCRATCH", "GLOBAL")[segment]
    name = words.name(format, f["op"])
    old = not words.generation.halves
    bits = 12 if words.generation is RDNA2 else 24 if "th" in f else 13
    # Flat addresses before RDNA4 ignore the sign bit; it is kept to be seen.
    offset = f["offset"] if segment == 0 and bits < 24 else _signed(f["offset"], bits)
    fields = {"offset": offset, **_cache(f)}
    if name in ("global_inv", "global_wb", "global_wbinv"):
        return Instruction(words.pc, 0, format, name, (), (), fields)
    saddr = f["saddr"]
    scalar = Operand("s", NULL, "b64") if old and saddr == 127 else (
        words.scalar(saddr, "b32" if segment == 1 else "b64")
    )
    # RDNA2 and CDNA2 say with `saddr` alone what others have a bit for: a vector register.
    in_vector = saddr == 127 if words.generation.gfx9 else scalar.index == NULL and saddr != 127
    fields["sve"] = f.get("sve", int(in_vector))
    wide = segment == 0 or (segment == 2 and scalar.index == NULL)
    address = Operand("v", f["addr"], "b64" if wide else "b32")
    type = "b32" if "_pk_" in name else _data_type(name)
    result = _data(f, "vdst", type)
    data = _data(f, "data", _twice(type) if "cmpswap" in name else type)
    if "addtid" in name:
        source: tuple[Operand, ...] = (scalar,)
    else:
        source = (address, scalar)
    loads = "_load_" in name
    if not loads:
        source += (data,)
    returns = loads or ("atomic" in name and _returns(f))
    return Instruction(words.pc, 0, format, name, (result,) if returns else (), source, fields)


# ---- buffer resources ----
_COMPONENTS = {"x": 1, "xy": 2, "xyz": 3, "xyzw": 4}


def _buffer_type(name: str) -> str:
    """The type of a buffer instruction's data."""
    if "_format_" not in name:
        return "b32" if "_pk_" in name else _data_type(name)
    count = _COMPONENTS[name.rsplit("_", 1)[1]]
    return f"b{32 * (-(-count // 2) if '_d16_' in name else count)}"


def _mubuf(words: Words, f: Fields) -> Instruction:
    name = words.name("MUBUF", f["op"])
    if name.endswith(("_inv", "_wbl2", "_invl2", "_wbinvl1", "_wbinvl1_vol")):
        scopes = ("sc0", "sc1") if "wbinvl1" not in name else ()
        how_far: Fields = {bit: f[bit] for bit in scopes if bit in f}
        return Instruction(words.pc, 0, "MUBUF", name, (), (), how_far)
    if f.get("tfe"):
        words.refuse("wants the status of the translation (tfe), which is not modelled")
    if f.get("lds") or "_lds_" in name:
        words.refuse("loads into LDS, which is not translated yet")
    bits = 24 if "th" in f else 12
    fields = {
        "offset": f["offset"] if bits == 12 else _signed(f["offset"], bits),
        "offen": f["offen"], "idxen": f["idxen"], **_cache(f),
    }
    type = _buffer_type(name)
    resource = words.scalar(f["srsrc"] if "th" in f else 4 * f["srsrc"], "b128")
    offset = words.source(f["soffset"], "b32")
    address = Operand("v", f["vaddr"], "b64" if f["offen"] and f["idxen"] else "b32")
    data = _data(f, "vdata", _twice(type) if "cmpswap" in name else type)
    loads = "_load_" in name
    returns = loads or ("atomic" in name and _returns(f))
    dst = (data._replace(type=type),) if returns else ()
    source = (address, resource, offset) + (() if loads else (data,))
    return Instruction(words.pc, 0, "MUBUF", name, dst, source, fields)


FORMATS: dict[str, Callable[[Words, Fields], Instruction]] = {
    "SMEM": _smem, "DS": _ds, "FLAT": _flat, "MUBUF": _mubuf,
}
