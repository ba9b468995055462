"""RDNA3's memory instructions → calls of the helpers (`helpers.py`) and scalar loads."""

from __future__ import annotations

import functools

from drivers.emulated.simt import helpers, layout
from drivers.emulated.simt.instruction import Instruction, Operand, UnknownInstruction
from drivers.emulated.simt.rdna_decode import EXEC, NULL
from drivers.emulated.simt.registers import VECTOR, Registers
from drivers.emulated.simt.values import LANES, Value, llvm_type

MEMORY_FORMATS = {"SMEM", "GLOBAL", "FLAT", "SCRATCH", "DS"}
_WIDE = f"<{LANES} x i64>"

# The word of an instruction's name → the helper's operation, for unsigned types first.
_ATOMICS = {"swap": "swap", "storexchg": "swap", "cmpswap": "cmpswap", "cmpstore": "cmpswap",
            "add": "add", "sub": "sub", "and": "and", "or": "or", "xor": "xor", "inc": "inc",
            "dec": "dec"}


@functools.cache
def _place(function: str) -> int:
    return layout.CONTEXT_FUNCTIONS + 8 * helpers.exports().index(function)


def kind_of(instruction: Instruction) -> int | None:
    """Which memory an instruction accesses, None if none: it gets a slot of that kind."""
    name = instruction.name
    if instruction.format not in MEMORY_FORMATS or name.endswith(("_inv", "permute_b32", "nop")):
        return None
    if name == "ds_swizzle_b32":
        return None
    return {"DS": layout.LOCAL, "SCRATCH": layout.SCRATCH}.get(instruction.format, layout.GLOBAL)


class MemoryAccess(Registers):
    """The part of the translator that reads and writes memory."""

    slots: dict[int, int]
    now: Instruction

    def refuse(self, why: str = "is not translated yet") -> UnknownInstruction:
        """The error that names the instruction at hand."""
        raise NotImplementedError

    def scalar_operand(self, operand: Operand, type: str | None = None) -> Value:
        """An operand as one value for the wave."""
        raise NotImplementedError

    def context_field(self, name: str) -> Value:
        """A 64-bit field of the thread's context."""
        offset = getattr(layout, f"CONTEXT_{name}")
        at = self.emit(f"getelementptr i8, ptr %context, i64 {offset}")
        return self.value(f"load i64, ptr {at}", "u64", False)

    def memory(self, instruction: Instruction) -> None:
        """Translates one memory instruction."""
        name, format = instruction.name, instruction.format
        if format == "SMEM":
            self._scalar_load(instruction)
        elif format == "DS":
            self._local(instruction)
        elif "_atomic_" in name:
            self._atomic(instruction, name.split("_atomic_")[1], self._addresses(instruction),
                         list(instruction.src[2:]))
        elif "_load_" in name:
            self._load(name.split("_load_")[1], instruction.dst[0], self._where(instruction))
        else:
            self._store(name.split("_store_")[1], instruction.src[2], self._where(instruction))

    # ---- where ----
    def _slot(self) -> str:
        offset = layout.CONTEXT_SLOTS + layout.SLOT_BYTES * self.slots[self.now.pc]
        return self.emit(f"getelementptr i8, ptr %context, i64 {offset}")

    def _where(self, instruction: Instruction) -> tuple[str, list[str]]:
        """The helper's form and the arguments that say where."""
        address, scalar, *_ = instruction.src
        offset = instruction.fields["offset"]
        if instruction.format == "SCRATCH":
            base = self.context_field("SCRATCH") + offset
            if scalar.index != NULL:
                base = base + self.scalar_operand(scalar, "u32").to("u64")
            lane_bytes = self.splat(self.context_field("SCRATCH_LANE_BYTES").to("u32"))
            numbers = ", ".join(f"i32 {lane}" for lane in range(LANES))
            offsets = lane_bytes * Value(self, f"<{numbers}>", "u32", True)
            if instruction.fields["sve"]:
                offsets = offsets + self.vector(address.index)
            return "offset", [f"i64 {base.text}", f"{VECTOR} {offsets.text}"]
        if address.type == "b64":
            wide = self.vector_pair(address.index)
            if offset:
                wide = wide + offset
            return "address", [f"{_WIDE} {wide.text}"]
        base = self.scalar_operand(scalar, "u64")
        if offset:
            base = base + offset
        return "offset", [f"i64 {base.text}", f"{VECTOR} {self.vector(address.index).text}"]

    def _addresses(self, instruction: Instruction) -> Value:
        """The address of each lane, as u64."""
        form, arguments = self._where(instruction)
        if form == "address":
            return Value(self, arguments[0].removeprefix(_WIDE + " "), "u64", True)
        base = Value(self, arguments[0].removeprefix("i64 "), "u64", False)
        offsets = Value(self, arguments[1].removeprefix(VECTOR + " "), "u32", True)
        return self.splat(base) + offsets.to("u64")

    def _local_where(self, address: Operand, offset: int) -> tuple[str, list[str]]:
        base = self.context_field("LDS")
        offsets = self.vector(address.index)
        if offset:
            base = base + offset
        return "offset", [f"i64 {base.text}", f"{VECTOR} {offsets.text}"]

    # ---- calls ----
    def _call(self, function: str, result: str, arguments: list[str]) -> str:
        if self.exec_full and not function.startswith("atomic"):
            function += "_full"
        at = self.emit(f"getelementptr i8, ptr %context, i64 {_place(function)}")
        pointer = self.emit(f"load ptr, ptr {at}")
        exec = f"i32 {self.scalar(EXEC).text}"
        given = ", ".join(["ptr %context", f"ptr {self._slot()}", exec, *arguments])
        if result == "void":
            self.do(f"call void {pointer}({given})")
            return ""
        return self.emit(f"call {result} {pointer}({given})")

    def _load(self, word: str, dst: Operand, where: tuple[str, list[str]]) -> None:
        kind = word.removeprefix("d16_").removeprefix("hi_").removesuffix("_d16_hi")
        kind = kind.removesuffix("_d16")
        kind = {"b16": "u16", "b8": "u8"}.get(kind, kind)
        registers = helpers.LOADS[kind][1]
        type = helpers.result_type(registers)
        text = self._call(f"load_{kind}_{where[0]}", type, where[1])
        if "d16" in word:
            value, old = Value(self, text, "u32", True), self.vector(dst.index)
            if word.endswith("hi") or "_hi_" in word:
                value = (old & 0xFFFF) | (value << 16)
            else:
                value = (old & 0xFFFF0000) | (value & 0xFFFF)
            self.set_vector(dst.index, value)
        elif registers == 1:
            self.set_vector(dst.index, Value(self, text, "u32", True))
        else:
            for j in range(registers):
                part = self.value(f"extractvalue {type} {text}, {j}", "u32", True)
                self.set_vector(dst.index + j, part)

    def _store(self, word: str, data: Operand, where: tuple[str, list[str]]) -> None:
        kind = word.removeprefix("d16_hi_").removesuffix("_d16_hi")
        values = [self.vector(data.index + j) for j in range(helpers.STORES[kind][1])]
        if "d16_hi" in word:
            values = [values[0] >> 16]
        self._call(
            f"store_{kind}_{where[0]}", "void",
            [*where[1], *(f"{VECTOR} {value.text}" for value in values)],
        )

    def _atomic(
        self, instruction: Instruction, word: str, addresses: Value, data: list[Operand]
    ) -> None:
        """`word` is like `add_u32`; cmpswap's data hold the new value, then the compared one."""
        name, _, type = word.partition("_")
        width = int(type[1:])
        operation = _ATOMICS.get(name)
        if type[0] == "f" and name in ("add", "min", "max"):
            operation = f"{name}_f"
        elif name in ("min", "max"):
            operation = f"{name}_{type[0]}"
        if operation is None:
            raise self.refuse()
        compared = data[0]
        if operation == "cmpswap":
            step = width // 32
            compared = data[0]._replace(index=data[0].index + step)
            if instruction.format == "DS":
                compared = data[1]
        read = self.vector_pair if width == 64 else self.vector
        new, old = read(data[0].index), read(compared.index)
        vector = llvm_type(f"u{width}", True)
        text = self._call(
            f"atomic_{operation}_{width}", vector,
            [f"{_WIDE} {addresses.text}", f"{vector} {new.text}", f"{vector} {old.text}"],
        )
        if instruction.dst:
            result = Value(self, text, f"u{width}", True)
            write = self.set_vector_pair if width == 64 else self.set_vector
            write(instruction.dst[0].index, result)

    # ---- the formats ----
    def _scalar_load(self, instruction: Instruction) -> None:
        name = instruction.name
        if name.endswith("_inv"):
            return
        if "buffer" in name:
            raise self.refuse()
        base, offset = instruction.src
        address = self.scalar_operand(base, "u64") + instruction.fields["offset"]
        if offset.index != NULL:
            address = address + self.scalar_operand(offset, "u32").to("u64")
        address = address & ~3
        count = instruction.dst[0].dwords
        at = self.emit(f"getelementptr i8, ptr %context, i64 {_place('scalar_check')}")
        function = self.emit(f"load ptr, ptr {at}")
        there = self.emit(
            f"call ptr {function}(ptr %context, ptr {self._slot()}, i64 {address.text}, "
            f"i64 {4 * count})"
        )
        first = instruction.dst[0].index
        for j in range(0, count, 2 if count > 1 else 1):
            place = self.emit(f"getelementptr i8, ptr {there}, i64 {4 * j}")
            if count == 1:
                value = self.value(f"load i32, ptr {place}, align 4", "u32", False)
                if first != NULL:
                    self.set_scalar(first, value)
            else:
                wide = self.value(f"load i64, ptr {place}, align 4", "u64", False)
                self.set_scalar_pair(first + j, wide)

    def _local(self, instruction: Instruction) -> None:
        name, fields = instruction.name, instruction.fields
        if name in ("ds_consume", "ds_append") or "addtid" in name or not instruction.src:
            raise self.refuse()
        address = instruction.src[0]
        if "2addr" in name:
            self._local_pair(instruction)
        elif name.startswith("ds_load_"):
            where = self._local_where(address, fields["offset"])
            self._load(name.removeprefix("ds_load_"), instruction.dst[0], where)
        elif name.startswith("ds_store_"):
            where = self._local_where(address, fields["offset"])
            self._store(name.removeprefix("ds_store_"), instruction.src[1], where)
        else:
            base = self.splat(self.context_field("LDS") + fields["offset"])
            addresses = base + self.vector(address.index).to("u64")
            word = name.removeprefix("ds_").replace("_rtn", "")
            self._atomic(instruction, word, addresses, list(instruction.src[1:]))

    def _local_pair(self, instruction: Instruction) -> None:
        """Two accesses with offsets counted in elements, or in 64 of them."""
        name, fields = instruction.name, instruction.fields
        if "storexchg" in name:
            raise self.refuse()
        kind = name.rsplit("_", 1)[1]
        registers = helpers.LOADS[kind][1]
        step = 4 * registers * (64 if "stride64" in name else 1)
        address = instruction.src[0]
        places = [
            self._local_where(address, fields[offset] * step) for offset in ("offset0", "offset1")
        ]
        if "store" in name:
            for data, where in zip(instruction.src[1:], places, strict=True):
                self._store(kind, data, where)
            return
        dst = instruction.dst[0]
        for j, where in enumerate(places):
            self._load(kind, dst._replace(index=dst.index + j * registers), where)
