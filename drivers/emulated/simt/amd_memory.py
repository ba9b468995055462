"""RDNA3's memory instructions → calls of the helpers (`helpers.py`) and scalar loads."""

from __future__ import annotations

import functools

from drivers.emulated.simt import helpers, layout
from drivers.emulated.simt.instruction import Instruction, Operand, UnknownInstruction
from drivers.emulated.simt.rdna_bits import EXEC, NULL
from drivers.emulated.simt.registers import Registers
from drivers.emulated.simt.values import Value, llvm_type

MEMORY_FORMATS = {"SMEM", "GLOBAL", "FLAT", "SCRATCH", "DS"}

Where = tuple[str, list[Value]]
"""A helper's form (`helpers.FORMS`) and the arguments that say where."""

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
    if instruction.format not in MEMORY_FORMATS or not (
        instruction.src
    ):
        return None
    if name in ("ds_swizzle_b32", "ds_permute_b32", "ds_bpermute_b32") or "prefetch" in name:
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

    def _where(self, instruction: Instruction) -> Where:
        address, scalar, *_ = instruction.src
        offset = instruction.fields["offset"]
        if instruction.format == "SCRATCH":
            base = self.context_field("SCRATCH") + offset
            if scalar.index != NULL:
                base = base + self.scalar_operand(scalar, "u32").to("u64")
            lane_bytes = self.splat(self.context_field("SCRATCH_LANE_BYTES").to("u32"))
            offsets = lane_bytes * self.each_lane("u32", range(self.wave_size))
            if instruction.fields["sve"]:
                offsets = offsets + self.vector(address.index)
            return "offset", [base, offsets]
        if address.type == "b64":
            wide = self.vector_pair(address.index)
            if offset:
                wide = wide + offset
            return "address", [wide]
        base = self.scalar_operand(scalar, "u64")
        if offset:
            base = base + offset
        return "offset", [base, self.vector(address.index)]

    def _addresses(self, instruction: Instruction) -> Value:
        """The address of each lane, as u64."""
        form, arguments = self._where(instruction)
        if form == "address":
            return arguments[0]
        base, offsets = arguments
        return self.splat(base) + offsets.to("u64")

    def _local_where(self, address: Operand, offset: int) -> Where:
        base = self.context_field("LDS")
        offsets = self.vector(address.index)
        if offset:
            base = base + offset
        return "offset", [base, offsets]

    # ---- calls ----
    def helper_address(self, function: str) -> str:
        """Where a helper is, as the table in the context has it."""
        at = self.emit(f"getelementptr i8, ptr %context, i64 {_place(function)}")
        return self.emit(f"load ptr, ptr {at}")

    def _call(self, function: str, results: list[str], arguments: list[Value]) -> list[Value]:
        """Calls a helper, which serves 32 lanes, for the whole wave; `results` are types."""
        if self.exec_full and not function.startswith("atomic"):
            function += "_full"
        pointer = self.helper_address(function)
        parts = []
        for part in range(self.wave_size // helpers.LANES):
            exec = f"i32 {self.scalar(EXEC + part).text}"
            where = ["ptr %context", f"ptr {self._slot()}", exec]
            given = [self._part(argument, part) for argument in arguments]
            parts.append(self._outcome(f"{pointer}({', '.join([*where, *given])})", results))
        return [
            self._joined(same, type)
            for same, type in zip(zip(*parts, strict=True), results, strict=True)
        ]

    def _outcome(self, call: str, results: list[str]) -> list[str]:
        types = [llvm_type(type, helpers.LANES) for type in results]
        if not types:
            self.do(f"call void {call}")
            return []
        if len(types) == 1:
            return [self.emit(f"call {types[0]} {call}")]
        both = "{" + ", ".join(types) + "}"
        text = self.emit(f"call {both} {call}")
        return [self.emit(f"extractvalue {both} {text}, {j}") for j in range(len(types))]

    def _part(self, value: Value, part: int) -> str:
        """A helper's argument: the scalar, or the values of the 32 lanes that it serves."""
        if not value.lanes or self.wave_size == helpers.LANES:
            return f"{value.llvm} {value.text}"
        places = ", ".join(f"i32 {helpers.LANES * part + lane}" for lane in range(helpers.LANES))
        text = self.emit(
            f"shufflevector {value.llvm} {value.text}, {value.llvm} poison, "
            f"<{helpers.LANES} x i32> <{places}>"
        )
        return f"{llvm_type(value.type, helpers.LANES)} {text}"

    def _joined(self, parts: tuple[str, ...], type: str) -> Value:
        if len(parts) == 1:
            return Value(self, parts[0], type, True)
        half, places = llvm_type(type, helpers.LANES), self.each_lane("u32", range(self.wave_size))
        return self.value(
            f"shufflevector {half} {parts[0]}, {half} {parts[1]}, {places.llvm} {places.text}",
            type, True,
        )

    def _load(self, word: str, dst: Operand, where: Where) -> None:
        kind = word.removeprefix("d16_").removeprefix("hi_").removesuffix("_d16_hi")
        kind = kind.removesuffix("_d16")
        kind = {"b16": "u16", "b8": "u8"}.get(kind, kind)
        values = self._call(f"load_{kind}_{where[0]}", ["u32"] * helpers.LOADS[kind][1], where[1])
        if "d16" in word:
            value, old = values[0], self.vector(dst.index)
            if word.endswith("hi") or "_hi_" in word:
                value = (old & 0xFFFF) | (value << 16)
            else:
                value = (old & 0xFFFF0000) | (value & 0xFFFF)
            self.set_vector(dst.index, value)
        else:
            for j, part in enumerate(values):
                self.set_vector(dst.index + j, part)

    def _store(self, word: str, data: Operand, where: Where) -> None:
        kind = word.removeprefix("d16_hi_").removesuffix("_d16_hi")
        values = [self.vector(data.index + j) for j in range(helpers.STORES[kind][1])]
        if "d16_hi" in word:
            values = [values[0] >> 16]
        self._call(f"store_{kind}_{where[0]}", [], [*where[1], *values])

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
        (result,) = self._call(
            f"atomic_{operation}_{width}", [f"u{width}"], [addresses, new, old]
        )
        if instruction.dst:
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
        function = self.helper_address("scalar_check")
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
