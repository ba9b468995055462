"""LLVM IR of the memory accesses that translated code calls, and the search for ranges.

Each access looks at what its lanes ask for: neighbours become one vector access, one address
becomes one scalar access, the rest gathers or scatters. All addresses are compared with the range
that the same instruction touched last; when they lie elsewhere, each lane is looked up in the
dispatch's list, and what lies nowhere is reported as a fault, reads as 0 and is not written.
"""

from __future__ import annotations

from collections.abc import Iterator

from drivers.emulated.simt import layout
from drivers.emulated.simt.atomics import ATOMICS, EVERY_ATOMIC, RETRIED

LANES = 32
"""That a helper serves; a wave of 64 calls it twice."""
VECTOR = f"<{LANES} x i32>"
WIDE = f"<{LANES} x i64>"
POINTERS = f"<{LANES} x ptr>"
MASK = f"<{LANES} x i1>"

# Kind: (bytes, registers, LLVM type of one element).
LOADS = {
    "u8": (1, 1, "i8"), "i8": (1, 1, "i8"), "u16": (2, 1, "i16"), "i16": (2, 1, "i16"),
    "b32": (4, 1, "i32"), "b64": (8, 2, "i32"), "b96": (12, 3, "i32"), "b128": (16, 4, "i32"),
}
STORES = {name: LOADS[name.replace("b8", "u8").replace("b16", "u16")]
          for name in ("b8", "b16", "b32", "b64", "b96", "b128")}
FORMS = ("offset", "address")
"""How a helper is told where: a scalar base with 32-bit offsets, or 64-bit addresses."""
VERSIONS = ("", "_full")
"""For any EXEC, and for one that is known to be full: nearly all tests fold away."""


def exports() -> list[str]:
    """The helpers in the order of a context's table."""
    names = [f"load_{kind}_{form}{v}" for kind in LOADS for form in FORMS for v in VERSIONS]
    names += [f"store_{kind}_{form}{v}" for kind in STORES for form in FORMS for v in VERSIONS]
    names += [f"atomic_{op}_{width}" for op in EVERY_ATOMIC for width in (32, 64)]
    return [*names, "scalar_check", "run", "share"]


def result_type(registers: int) -> str:
    """What a load returns."""
    return VECTOR if registers == 1 else "{" + ", ".join([VECTOR] * registers) + "}"


def listed(values: Iterator[int] | range, type: str) -> str:
    """A constant vector of integers."""
    return "<" + ", ".join(f"{type} {value}" for value in values) + ">"


_FIND = f"""
; Whether `size` bytes at `address` may be accessed; remembers their range in the slot.
define internal i1 @find(ptr %context, ptr %slot, i64 %address, i64 %size, i32 %access) noinline {{
entry:
  %end = add i64 %address, %size
  %old.first = load i64, ptr %slot
  %old.end.at = getelementptr i8, ptr %slot, i64 {layout.SLOT_END}
  %old.end = load i64, ptr %old.end.at
  %a0 = icmp uge i64 %address, %old.first
  %b0 = icmp ule i64 %end, %old.end
  %c0 = icmp ugt i64 %end, %address
  %d0 = and i1 %a0, %b0
  %known = and i1 %d0, %c0
  br i1 %known, label %yes, label %global
global:
  %kind.at = getelementptr i8, ptr %slot, i64 {layout.SLOT_KIND}
  %kind = load i64, ptr %kind.at
  %is.global = icmp eq i64 %kind, {layout.GLOBAL}
  br i1 %is.global, label %search, label %no
search:
  %ranges.at = getelementptr i8, ptr %context, i64 {layout.CONTEXT_RANGES}
  %ranges = load ptr, ptr %ranges.at
  %count.at = getelementptr i8, ptr %context, i64 {layout.CONTEXT_RANGE_COUNT}
  %count = load i64, ptr %count.at
  br label %loop
loop:
  %i = phi i64 [ 0, %search ], [ %next, %miss ]
  %more = icmp ult i64 %i, %count
  br i1 %more, label %test, label %fault
test:
  %at = mul i64 %i, 24
  %range = getelementptr i8, ptr %ranges, i64 %at
  %first = load i64, ptr %range
  %last.at = getelementptr i8, ptr %range, i64 8
  %last = load i64, ptr %last.at
  %protection.at = getelementptr i8, ptr %range, i64 16
  %protection = load i64, ptr %protection.at
  %a = icmp uge i64 %address, %first
  %b = icmp ule i64 %end, %last
  %c = icmp ugt i64 %end, %address
  %wanted = zext i32 %access to i64
  %allowed.bits = and i64 %protection, %wanted
  %allowed = icmp eq i64 %allowed.bits, %wanted
  %d = and i1 %a, %b
  %e = and i1 %c, %allowed
  %hit = and i1 %d, %e
  %next = add i64 %i, 1
  br i1 %hit, label %found, label %miss
miss:
  br label %loop
found:
  store i64 %first, ptr %slot
  store i64 %last, ptr %old.end.at
  br label %yes
fault:
  %fault.at = getelementptr i8, ptr %context, i64 {layout.CONTEXT_FAULT}
  %before = load i32, ptr %fault.at
  %is.first = icmp eq i32 %before, 0
  br i1 %is.first, label %report, label %no
report:
  store i32 {layout.FAULT_MEMORY}, ptr %fault.at
  %access.at = getelementptr i8, ptr %context, i64 {layout.CONTEXT_ACCESS}
  store i32 %access, ptr %access.at
  %address.at = getelementptr i8, ptr %context, i64 {layout.CONTEXT_ADDRESS}
  store i64 %address, ptr %address.at
  %slot.pc.at = getelementptr i8, ptr %slot, i64 {layout.SLOT_PC}
  %pc = load i64, ptr %slot.pc.at
  %pc.at = getelementptr i8, ptr %context, i64 {layout.CONTEXT_PC}
  store i64 %pc, ptr %pc.at
  %wave.at = getelementptr i8, ptr %context, i64 {layout.CONTEXT_WAVE}
  %wave = load i64, ptr %wave.at
  %fault.wave.at = getelementptr i8, ptr %context, i64 {layout.CONTEXT_FAULT_WAVE}
  store i64 %wave, ptr %fault.wave.at
  %budget.at = getelementptr i8, ptr %context, i64 {layout.CONTEXT_BUDGET}
  store i64 0, ptr %budget.at
  br label %no
yes:
  ret i1 true
no:
  ret i1 false
}}

; Where a scalar load may read `size` bytes: at `address`, or zeros.
define internal ptr @scalar_check(ptr %context, ptr %slot, i64 %address, i64 %size) {{
  %good = call i1 @find(ptr %context, ptr %slot, i64 %address, i64 %size, i32 {layout.READ})
  %there = inttoptr i64 %address to ptr
  %zeros = getelementptr i8, ptr %context, i64 {layout.CONTEXT_ZEROS}
  %result = select i1 %good, ptr %there, ptr %zeros
  ret ptr %result
}}

; Moves each lane's bytes one lane at a time; `buffer` holds 16 bytes a lane.
define internal void @slow(ptr %context, ptr %slot, i32 %exec, ptr %addresses, ptr %buffer,
                           i64 %size, i32 %access) noinline {{
entry:
  br label %loop
loop:
  %left = phi i32 [ %exec, %entry ], [ %rest, %next ]
  %none = icmp eq i32 %left, 0
  br i1 %none, label %done, label %lane
lane:
  %number = call i32 @llvm.cttz.i32(i32 %left, i1 false)
  %minus = sub i32 %left, 1
  %rest = and i32 %left, %minus
  %index = zext i32 %number to i64
  %address.at = getelementptr i64, ptr %addresses, i64 %index
  %address = load i64, ptr %address.at
  %good = call i1 @find(ptr %context, ptr %slot, i64 %address, i64 %size, i32 %access)
  br i1 %good, label %move, label %next
move:
  %there = inttoptr i64 %address to ptr
  %offset = shl i64 %index, 4
  %here = getelementptr i8, ptr %buffer, i64 %offset
  %reads = icmp eq i32 %access, {layout.READ}
  %from = select i1 %reads, ptr %there, ptr %here
  %to = select i1 %reads, ptr %here, ptr %there
  br label %bytes
bytes:
  %i = phi i64 [ 0, %move ], [ %i.next, %bytes ]
  %byte.from = getelementptr i8, ptr %from, i64 %i
  %byte = load volatile i8, ptr %byte.from
  %byte.to = getelementptr i8, ptr %to, i64 %i
  store volatile i8 %byte, ptr %byte.to
  %i.next = add i64 %i, 1
  %more = icmp ult i64 %i.next, %size
  br i1 %more, label %bytes, label %next
next:
  br label %loop
done:
  ret void
}}
declare i32 @llvm.cttz.i32(i32, i1)
declare i32 @llvm.ctlz.i32(i32, i1)
"""


def _prologue(form: str, size: int, zero: str) -> str:
    """Computes the pattern of the addresses; leaves %neighbours, %same, %start and bounds."""
    lanes = LANES
    if form == "offset":
        type, element = "i32", "%offsets"
    else:
        type, element = "i64", "%wide"
    vector = f"<{lanes} x {type}>"
    steps = listed(range(0, lanes * size, size), type)
    text = f"""
entry:
  %buffer = alloca [{lanes} x [4 x i32]], align 64
  %list = alloca {WIDE}, align 64
  %idle = icmp eq i32 %exec, 0
  br i1 %idle, label %nothing, label %look
nothing:
  ret {zero}
look:
  %mask = bitcast i32 %exec to {MASK}
  %low = call i32 @llvm.cttz.i32(i32 %exec, i1 true)
  %leading = call i32 @llvm.ctlz.i32(i32 %exec, i1 true)
  %high = sub i32 31, %leading
  %low.wide = zext i32 %low to i64
  %all = icmp eq i32 %exec, -1
  %first.element = extractelement {vector} {element}, i32 %low
  %f0 = insertelement {vector} poison, {type} %first.element, i32 0
  %f1 = shufflevector {vector} %f0, {vector} poison, <{lanes} x i32> zeroinitializer
  %delta = sub {vector} {element}, %f1
  %low.typed = {"add i32 %low, 0" if type == "i32" else "zext i32 %low to i64"}
  %back = mul {type} %low.typed, {size}
  %b0 = insertelement {vector} poison, {type} %back, i32 0
  %b1 = shufflevector {vector} %b0, {vector} poison, <{lanes} x i32> zeroinitializer
  %expected = sub {vector} {steps}, %b1
  %strange = icmp ne {vector} %delta, %expected
  %strange.active = and {MASK} %strange, %mask
  %strange.bits = bitcast {MASK} %strange.active to i32
  %neighbours.0 = icmp eq i32 %strange.bits, 0
  %other = icmp ne {vector} %delta, zeroinitializer
  %other.active = and {MASK} %other, %mask
  %other.bits = bitcast {MASK} %other.active to i32
  %same = icmp eq i32 %other.bits, 0
  %back.wide = mul i64 %low.wide, {size}
"""
    if form == "offset":
        text += f"""
  %first.wide = zext i32 %first.element to i64
  %first = add i64 %base, %first.wide
  %no.wrap = icmp ult i32 %first.element, {0xFFFFF000}
  %neighbours = and i1 %neighbours.0, %no.wrap
  %bases.0 = insertelement {WIDE} poison, i64 %base, i32 0
  %bases = shufflevector {WIDE} %bases.0, {WIDE} poison, <{lanes} x i32> zeroinitializer
  %offsets.wide = zext {vector} %offsets to {WIDE}
  %addresses = add {WIDE} %bases, %offsets.wide
"""
    else:
        text += f"""
  %first = add i64 %first.element, 0
  %neighbours = and i1 %neighbours.0, true
  %addresses = add {WIDE} %wide, zeroinitializer
"""
    return text + f"""
  %start = sub i64 %first, %back.wide
  %start.pointer = inttoptr i64 %start to ptr
  %first.pointer = inttoptr i64 %first to ptr
  %range.first = load i64, ptr %slot
  %range.end.at = getelementptr i8, ptr %slot, i64 {layout.SLOT_END}
  %range.end = load i64, ptr %range.end.at
  %from.inside = icmp uge i64 %first, %range.first
  %high.wide = zext i32 %high to i64
  %count.0 = sub i64 %high.wide, %low.wide
  %count = add i64 %count.0, 1
  %extent = mul i64 %count, {size}
  %stop = add i64 %first, %extent
  %to.inside = icmp ule i64 %stop, %range.end
  %not.around = icmp ugt i64 %stop, %first
  %inside.0 = and i1 %from.inside, %to.inside
  %inside = and i1 %inside.0, %not.around
  %fast = and i1 %inside, %neighbours
"""


def bounds(size: int) -> str:
    """For scattered addresses: %good tells whether all active lanes lie in the slot's range."""
    splat = f"{WIDE} poison, <{LANES} x i32> zeroinitializer"
    return f"""
  %f = insertelement {WIDE} poison, i64 %range.first, i32 0
  %firsts = shufflevector {WIDE} %f, {splat}
  %span.0 = sub i64 %range.end, %range.first
  %span.1 = sub i64 %span.0, {size}
  %big = icmp uge i64 %span.0, {size}
  %s = insertelement {WIDE} poison, i64 %span.1, i32 0
  %spans = shufflevector {WIDE} %s, {splat}
  %relative = sub {WIDE} %addresses, %firsts
  %outside = icmp ugt {WIDE} %relative, %spans
  %outside.active = and {MASK} %outside, %mask
  %outside.bits = bitcast {MASK} %outside.active to i32
  %none.outside = icmp eq i32 %outside.bits, 0
  %good = and i1 %none.outside, %big
  %pointers = inttoptr {WIDE} %addresses to {POINTERS}
"""


def _parameters(form: str) -> str:
    where = f"i64 %base, {VECTOR} %offsets" if form == "offset" else f"{WIDE} %wide"
    return f"ptr %context, ptr %slot, i32 %exec, {where}"


def _extend(kind: str, element: str, value: str, result: str) -> str:
    operation = "sext" if kind[0] == "i" else "zext"
    return f"  {result} = {operation} <{LANES} x {element}> {value} to {VECTOR}\n"


def _repeated_mask(registers: int) -> str:
    count = LANES * registers
    places = listed((i // registers for i in range(count)), "i32")
    return f"  %wide.mask = shufflevector {MASK} %mask, {MASK} poison, <{count} x i32> {places}\n"


def _strided(registers: int, j: int) -> str:
    return listed(range(j, LANES * registers, registers), "i32")


def _make(values: list[str]) -> str:
    """Builds the struct of a load's result and returns it."""
    if len(values) == 1:
        return f"  ret {VECTOR} {values[0]}\n"
    type, before, text = result_type(len(values)), "poison", ""
    for j, value in enumerate(values):
        name = f"{values[-1]}.r{j}"
        text += f"  {name} = insertvalue {type} {before}, {VECTOR} {value}, {j}\n"
        before = name
    return text + f"  ret {type} {before}\n"


def _groups(form: str, size: int, lanes: int, otherwise: str) -> str:
    """Tests for groups of so many lanes, each with one address or with neighbours.

    Goes to %near.G or %same.G with the groups' addresses in %G.p0, %G.p1 …, or `otherwise`.
    """
    type, element = ("i32", "%offsets") if form == "offset" else ("i64", "%wide")
    vector, count, g = f"<{LANES} x {type}>", LANES // lanes, f"g{lanes}"
    leaders = listed((lane // lanes * lanes for lane in range(LANES)), "i32")
    steps = listed((lane % lanes * size for lane in range(LANES)), type)
    text = f"""group.{lanes}:
  %{g}.leaders = shufflevector {vector} {element}, {vector} poison, {VECTOR} {leaders}
  %{g}.delta = sub {vector} {element}, %{g}.leaders
  %{g}.far = icmp ne {vector} %{g}.delta, {steps}
  %{g}.far.bits = bitcast {MASK} %{g}.far to i32
  %{g}.near = icmp eq i32 %{g}.far.bits, 0
  %{g}.other = icmp ne {vector} %{g}.delta, zeroinitializer
  %{g}.other.bits = bitcast {MASK} %{g}.other to i32
  %{g}.same = icmp eq i32 %{g}.other.bits, 0
  %{g}.either = or i1 %{g}.near, %{g}.same
  %{g}.extent = select i1 %{g}.near, i64 {lanes * size}, i64 {size}
  %{g}.good0 = and i1 %{g}.either, %all
"""
    for j in range(count):
        text += f"""
  %{g}.a{j} = extractelement {WIDE} %addresses, i32 {j * lanes}
  %{g}.e{j} = add i64 %{g}.a{j}, %{g}.extent
  %{g}.x{j} = icmp uge i64 %{g}.a{j}, %range.first
  %{g}.y{j} = icmp ule i64 %{g}.e{j}, %range.end
  %{g}.z{j} = icmp ugt i64 %{g}.e{j}, %{g}.a{j}
  %{g}.xy{j} = and i1 %{g}.x{j}, %{g}.y{j}
  %{g}.xyz{j} = and i1 %{g}.xy{j}, %{g}.z{j}
  %{g}.good{j + 1} = and i1 %{g}.good{j}, %{g}.xyz{j}
  %{g}.p{j} = inttoptr i64 %{g}.a{j} to ptr
"""
    return text + f"""  br i1 %{g}.good{count}, label %grouped.{lanes}, label %{otherwise}
grouped.{lanes}:
  br i1 %{g}.near, label %near.{lanes}, label %same.{lanes}
"""


def gathered_groups(kind: str, lanes: int) -> str:
    """Loads for both patterns of `_groups`."""
    _, registers, element = LOADS[kind]
    count, g, each = LANES // lanes, f"g{lanes}", lanes * registers
    text = f"near.{lanes}:\n"
    for j in range(count):
        text += f"  %{g}.n{j} = load <{each} x {element}>, ptr %{g}.p{j}, align 1\n"
    parts, width, number = [f"%{g}.n{j}" for j in range(count)], each, 0
    while len(parts) > 1:  # join neighbours until one vector is left
        joined = []
        for low, high in zip(parts[::2], parts[1::2], strict=True):
            name = f"%{g}.j{number}"
            number += 1
            text += (f"  {name} = shufflevector <{width} x {element}> {low}, <{width} x {element}>"
                     f" {high}, <{2 * width} x i32> {listed(range(2 * width), 'i32')}\n")
            joined.append(name)
        parts, width = joined, 2 * width
    names = []
    for j in range(registers):
        name = parts[0]
        if registers > 1:
            name = f"%{g}.r{j}"
            text += (f"  {name} = shufflevector <{width} x {element}> {parts[0]}, "
                     f"<{width} x {element}> poison, {VECTOR} {_strided(registers, j)}\n")
        elif element != "i32":
            name = f"%{g}.wide"
            text += _extend(kind, element, parts[0], name)
        names.append(name)
    text += _make(names) + f"same.{lanes}:\n"
    names = []
    spread = listed((lane // lanes for lane in range(LANES)), "i32")
    for j in range(registers):
        before = "poison"
        for k in range(count):
            at, value = f"%{g}.s{j}.{k}.at", f"%{g}.s{j}.{k}"
            text += f"  {at} = getelementptr i8, ptr %{g}.p{k}, i64 {4 * j}\n"
            text += f"  {value} = load {element}, ptr {at}, align 1\n"
            if element != "i32":
                operation = "sext" if kind[0] == "i" else "zext"
                text += f"  {value}.e = {operation} {element} {value} to i32\n"
                value += ".e"
            text += f"  {at}.v = insertelement {VECTOR} {before}, i32 {value}, i32 {k}\n"
            before = f"{at}.v"
        text += (f"  %{g}.t{j} = shufflevector {VECTOR} {before}, {VECTOR} poison, "
                 f"{VECTOR} {spread}\n")
        names.append(f"%{g}.t{j}")
    return text + _make(names)


def gather(kind: str) -> str:
    """Loads from all addresses, which have passed `bounds`."""
    _, registers, element = LOADS[kind]
    gathered = f"<{LANES} x {element}>"
    text, names = "gather:\n", []
    for j in range(registers):
        text += f"  %g{j}.p = getelementptr i8, {POINTERS} %pointers, i64 {4 * j}\n"
        text += (
            f"  %g{j}.v = call {gathered} @llvm.masked.gather.v{LANES}{element}.v{LANES}p0("
            f"{POINTERS} %g{j}.p, i32 1, {MASK} %mask, {gathered} zeroinitializer)\n"
        )
        if element != "i32":
            text += _extend(kind, element, f"%g{j}.v", f"%g{j}")
            names.append(f"%g{j}")
        else:
            names.append(f"%g{j}.v")
    return text + _make(names)


def load(kind: str, form: str) -> str:
    """The IR of one kind of load."""
    size, registers, element = LOADS[kind]
    result = result_type(registers)
    count = LANES * registers
    block, gathered = f"<{count} x {element}>", f"<{LANES} x {element}>"
    text = f"define internal {result} @any_load_{kind}_{form}({_parameters(form)}) alwaysinline {{"
    text += _prologue(form, size, f"{result} zeroinitializer")
    text += "  br i1 %fast, label %near, label %far\n"
    text += "near:\n  br i1 %all, label %near.all, label %near.some\n"
    text += f"near.all:\n  %na = load {block}, ptr %start.pointer, align 1\n"
    text += "  br label %near.join\n"
    text += "near.some:\n"
    wide_mask = "%mask" if registers == 1 else "%wide.mask"
    if registers > 1:
        text += _repeated_mask(registers)
    text += (
        f"  %ns = call {block} @llvm.masked.load.v{count}{element}.p0(ptr %start.pointer, "
        f"i32 1, <{count} x i1> {wide_mask}, {block} zeroinitializer)\n"
    )
    text += "  br label %near.join\nnear.join:\n"
    text += f"  %n = phi {block} [ %na, %near.all ], [ %ns, %near.some ]\n"
    if registers == 1:
        if element == "i32":
            text += f"  ret {VECTOR} %n\n"
        else:
            text += _extend(kind, element, "%n", "%n.wide") + f"  ret {VECTOR} %n.wide\n"
    else:
        names = []
        for j in range(registers):
            text += (f"  %n{j} = shufflevector {block} %n, {block} poison, "
                     f"{VECTOR} {_strided(registers, j)}\n")
            names.append(f"%n{j}")
        text += _make(names)
    # one address for all lanes
    text += "far:\n  br i1 %same, label %one, label %group.16\none:\n"
    text += f"  %one.stop = add i64 %first, {size}\n"
    text += "  %one.to = icmp ule i64 %one.stop, %range.end\n"
    text += "  %one.around = icmp ugt i64 %one.stop, %first\n"
    text += "  %one.0 = and i1 %from.inside, %one.to\n  %one.good = and i1 %one.0, %one.around\n"
    text += "  br i1 %one.good, label %one.load, label %slowly\none.load:\n"
    names = []
    for j in range(registers):
        text += f"  %o{j}.at = getelementptr i8, ptr %first.pointer, i64 {4 * j}\n"
        text += f"  %o{j}.s = load {element}, ptr %o{j}.at, align 1\n"
        value = f"%o{j}.s"
        if element != "i32":
            operation = "sext" if kind[0] == "i" else "zext"
            text += f"  %o{j}.e = {operation} {element} %o{j}.s to i32\n"
            value = f"%o{j}.e"
        text += f"  %o{j}.i = insertelement {VECTOR} poison, i32 {value}, i32 0\n"
        text += (f"  %o{j} = shufflevector {VECTOR} %o{j}.i, {VECTOR} poison, "
                 f"<{LANES} x i32> zeroinitializer\n")
        names.append(f"%o{j}")
    text += _make(names)
    # groups, as blocks of two dimensions have them
    text += _groups(form, size, 16, "group.8") + gathered_groups(kind, 16)
    text += _groups(form, size, 8, "scattered") + gathered_groups(kind, 8)
    # anything
    text += "scattered:\n" + bounds(size) + "  br i1 %good, label %gather, label %slowly\n"
    text += gather(kind)
    text += f"""slowly:
  store {WIDE} %addresses, ptr %list
  call void @clear(ptr %buffer)
  call void @slow(ptr %context, ptr %slot, i32 %exec, ptr %list,
                  ptr %buffer, i64 {size}, i32 {layout.READ})
  %all.words = load <{4 * LANES} x i32>, ptr %buffer
"""
    names = []
    for j in range(registers):
        text += (f"  %w{j} = shufflevector <{4 * LANES} x i32> %all.words, <{4 * LANES} x i32> "
                 f"poison, {VECTOR} {_strided(4, j)}\n")
        names.append(f"%w{j}")
    if element != "i32":
        text += f"  %w.cut = trunc {VECTOR} %w0 to {gathered}\n"
        text += _extend(kind, element, "%w.cut", "%w.ext")
        names = ["%w.ext"]
    return text + _make(names) + "}\n"


def store(kind: str, form: str) -> str:
    """The IR of one kind of store."""
    size, registers, element = STORES[kind]
    count = LANES * registers
    block, one = f"<{count} x {element}>", f"<{LANES} x {element}>"
    data = ", ".join(f"{VECTOR} %d{j}" for j in range(registers))
    text = f"define internal void @any_store_{kind}_{form}({_parameters(form)}, {data})"
    text += " alwaysinline {"
    text += _prologue(form, size, "void")
    text += "  br i1 %fast, label %near, label %scattered\nnear:\n"
    joined = "%d0"
    if element != "i32":
        text += f"  %cut = trunc {VECTOR} %d0 to {one}\n"
        joined = "%cut"
    elif registers > 1:
        pairs = 2 if registers == 2 else 4
        text += "  %p0 = shufflevector {0} %d0, {0} %d1, <64 x i32> {1}\n".format(
            VECTOR, listed(range(64), "i32"))
        wide = "%p0"
        if pairs == 4:
            fourth = "%d3" if registers == 4 else "poison"
            text += "  %p1 = shufflevector {0} %d2, {0} {2}, <64 x i32> {1}\n".format(
                VECTOR, listed(range(64), "i32"), fourth)
            text += ("  %p2 = shufflevector <64 x i32> %p0, <64 x i32> %p1, <128 x i32> "
                     f"{listed(range(128), 'i32')}\n")
            wide = "%p2"
        places = listed(
            (i % registers * LANES + i // registers for i in range(count)), "i32"
        )
        source = f"<{32 * pairs} x i32>"
        text += (f"  %joined = shufflevector {source} {wide}, {source} poison, "
                 f"<{count} x i32> {places}\n")
        joined = "%joined"
    text += "  br i1 %all, label %near.all, label %near.some\n"
    text += f"near.all:\n  store {block} {joined}, ptr %start.pointer, align 1\n  ret void\n"
    text += "near.some:\n"
    if registers > 1:
        text += _repeated_mask(registers)
    wide_mask = "%mask" if registers == 1 else "%wide.mask"
    text += (
        f"  call void @llvm.masked.store.v{count}{element}.p0({block} {joined}, "
        f"ptr %start.pointer, i32 1, <{count} x i1> {wide_mask})\n  ret void\n"
    )
    text += "scattered:\n" + bounds(size) + "  br i1 %good, label %scatter, label %slowly\n"
    text += "scatter:\n"
    for j in range(registers):
        value = f"%d{j}"
        if element != "i32":
            text += f"  %s.cut = trunc {VECTOR} %d0 to {one}\n"
            value = "%s.cut"
        text += f"  %s{j}.p = getelementptr i8, {POINTERS} %pointers, i64 {4 * j}\n"
        text += (
            f"  call void @llvm.masked.scatter.v{LANES}{element}.v{LANES}p0({one} {value}, "
            f"{POINTERS} %s{j}.p, i32 1, {MASK} %mask)\n"
        )
    text += "  ret void\nslowly:\n"
    text += f"  store {WIDE} %addresses, ptr %list\n"
    for j in range(registers):
        for lane in range(LANES):
            text += f"  %e{j}.{lane} = extractelement {VECTOR} %d{j}, i32 {lane}\n"
            text += (f"  %a{j}.{lane} = getelementptr i32, ptr %buffer, i64 {4 * lane + j}\n"
                     f"  store i32 %e{j}.{lane}, ptr %a{j}.{lane}\n")
    return text + f"""
  call void @slow(ptr %context, ptr %slot, i32 %exec, ptr %list,
                  ptr %buffer, i64 {size}, i32 {layout.WRITE})
  ret void
}}
"""


def atomic(operation: str, width: int) -> str:
    """The IR of one atomic operation: lane after lane; returns the old values."""
    type, vector = f"i{width}", f"<{LANES} x i{width}>"
    if operation in RETRIED:
        float = "float" if width == 32 else "double"
        change = f"""
  %compare.at = getelementptr {type}, ptr %compares, i64 %index
  %compare = load {type}, ptr %compare.at
  br label %retry
retry:
  %seen = load atomic {type}, ptr %there monotonic, align {width // 8}
{RETRIED[operation].format(i=type, f=float, h=width // 16)}
  %pair = cmpxchg ptr %there, {type} %seen, {type} %new seq_cst seq_cst
  %old = extractvalue {{ {type}, i1 }} %pair, 0
  %stored = extractvalue {{ {type}, i1 }} %pair, 1
  br i1 %stored, label %swapped, label %retry
swapped:
"""
    elif operation == "cmpswap":
        change = f"""
  %compare.at = getelementptr {type}, ptr %compares, i64 %index
  %compare = load {type}, ptr %compare.at
  %pair = cmpxchg ptr %there, {type} %compare, {type} %value seq_cst seq_cst
  %old = extractvalue {{ {type}, i1 }} %pair, 0
"""
    elif operation.endswith("_f"):
        float = "float" if width == 32 else "double"
        change = f"""
  %value.f = bitcast {type} %value to {float}
  %old.f = atomicrmw {ATOMICS[operation]} ptr %there, {float} %value.f seq_cst
  %old = bitcast {float} %old.f to {type}
"""
    else:
        change = f"\n  %old = atomicrmw {ATOMICS[operation]} ptr %there, {type} %value seq_cst\n"
    return f"""
define internal {vector} @atomic_{operation}_{width}(ptr %context, ptr %slot, i32 %exec,
    {WIDE} %addresses, {vector} %data, {vector} %compare.data) noinline {{
entry:
  %list = alloca {WIDE}, align 64
  %values = alloca {vector}, align 64
  %compares = alloca {vector}, align 64
  %results = alloca {vector}, align 64
  store {WIDE} %addresses, ptr %list
  store {vector} %data, ptr %values
  store {vector} %compare.data, ptr %compares
  store {vector} zeroinitializer, ptr %results
  br label %loop
loop:
  %left = phi i32 [ %exec, %entry ], [ %rest, %next ]
  %none = icmp eq i32 %left, 0
  br i1 %none, label %done, label %lane
lane:
  %number = call i32 @llvm.cttz.i32(i32 %left, i1 false)
  %minus = sub i32 %left, 1
  %rest = and i32 %left, %minus
  %index = zext i32 %number to i64
  %address.at = getelementptr i64, ptr %list, i64 %index
  %address = load i64, ptr %address.at
  %misaligned.bits = and i64 %address, {width // 8 - 1}
  %aligned = icmp eq i64 %misaligned.bits, 0
  br i1 %aligned, label %check, label %next
check:
  %good = call i1 @find(ptr %context, ptr %slot, i64 %address,
                       i64 {width // 8}, i32 {layout.READ | layout.WRITE})
  br i1 %good, label %move, label %next
move:
  %there = inttoptr i64 %address to ptr
  %value.at = getelementptr {type}, ptr %values, i64 %index
  %value = load {type}, ptr %value.at
{change}
  %result.at = getelementptr {type}, ptr %results, i64 %index
  store {type} %old, ptr %result.at
  br label %next
next:
  br label %loop
done:
  %result = load {vector}, ptr %results
  ret {vector} %result
}}
"""


def _versions(what: str, kind: str, form: str) -> str:
    """The exported functions: the same body with EXEC as given, and with EXEC full."""
    where = ["i64 %base", f"{VECTOR} %offsets"] if form == "offset" else [f"{WIDE} %wide"]
    registers = (LOADS if what == "load" else STORES)[kind][1]
    result = result_type(registers) if what == "load" else "void"
    data = [f"{VECTOR} %d{j}" for j in range(registers)] if what == "store" else []
    text = ""
    for version, exec in zip(VERSIONS, ("%exec", "-1"), strict=True):
        given = ", ".join(["ptr %context", "ptr %slot", "i32 %exec", *where, *data])
        passed = given.replace("%exec", exec)
        returned = "ret void" if result == "void" else f"ret {result} %result"
        assigned = "" if result == "void" else "%result = "
        text += (f"define internal {result} @{what}_{kind}_{form}{version}({given}) noinline {{\n"
                 f"  {assigned}call {result} @any_{what}_{kind}_{form}({passed})\n"
                 f"  {returned}\n}}\n")
    return text


def _intrinsics() -> str:
    lines = []
    for registers in (1, 2, 3, 4):
        elements = ("i8", "i16", "i32") if registers == 1 else ("i32",)
        for element in elements:
            count = LANES * registers
            block, mask = f"<{count} x {element}>", f"<{count} x i1>"
            lines += [
                f"declare {block} @llvm.masked.load.v{count}{element}.p0("
                f"ptr, i32, {mask}, {block})",
                f"declare void @llvm.masked.store.v{count}{element}.p0({block}, ptr, i32, {mask})",
            ]
            if registers == 1:
                lines += [
                    f"declare {block} @llvm.masked.gather.v32{element}.v32p0("
                    f"{POINTERS}, i32, {mask}, {block})",
                    f"declare void @llvm.masked.scatter.v32{element}.v32p0("
                    f"{block}, {POINTERS}, i32, {mask})",
                ]
    return "\n".join(lines) + f"""
define internal void @clear(ptr %buffer) noinline {{
  store <{4 * LANES} x i32> zeroinitializer, ptr %buffer
  ret void
}}
"""


def text() -> str:
    """The IR of all helpers."""
    parts = [_FIND, _intrinsics()]
    parts += [load(kind, form) for kind in LOADS for form in FORMS]
    parts += [store(kind, form) for kind in STORES for form in FORMS]
    parts += [_versions("load", kind, form) for kind in LOADS for form in FORMS]
    parts += [_versions("store", kind, form) for kind in STORES for form in FORMS]
    parts += [atomic(op, width) for op in EVERY_ATOMIC for width in (32, 64)]
    return "\n".join(parts)
