"""AMD's memory instructions → calls of the helpers (`helpers.py`) and scalar loads."""

from __future__ import annotations

from drivers.emulated.simt import helpers, layout, ordered
from drivers.emulated.simt.access import Access, Where
from drivers.emulated.simt.amd_bits import NULL
from drivers.emulated.simt.instruction import Instruction, Operand, UnknownInstruction
from drivers.emulated.simt.values import Value

MEMORY_FORMATS = {"SMEM", "GLOBAL", "FLAT", "SCRATCH", "DS", "MUBUF"}
APERTURES = {235: 1 << 48, 236: (1 << 48) + 0xFFFFFFFF, 237: 1 << 49, 238: (1 << 49) + 0xFFFFFFFF}
"""src_shared_base, src_shared_limit, src_private_base and src_private_limit: the flat addresses of
LDS and of scratch, as Linux's driver sets them (kfd_flat_memory.c)."""

# The word of an instruction's name → the helper's operation, for unsigned types first.
_ATOMICS = {"swap": "swap", "storexchg": "swap", "cmpswap": "cmpswap", "cmpstore": "cmpswap",
            "cmpst": "cmpswap", "csub": "csub", "sub_clamp": "csub"}
_ATOMICS |= {name: name for name in ("add", "sub", "and", "or", "xor", "inc", "dec", "rsub",
                                     "mskor", "wrap", "cond_sub", "pk_add")}


def kinds_of(instruction: Instruction) -> tuple[int, ...]:
    """Which memory an instruction accesses, if any: it gets a slot of that kind."""
    name = instruction.name
    if instruction.format not in MEMORY_FORMATS or not (
        instruction.src
    ):
        return ()
    if name in ("ds_swizzle_b32", "ds_permute_b32", "ds_bpermute_b32") or "prefetch" in name:
        return ()
    return ({"DS": layout.LOCAL, "SCRATCH": layout.SCRATCH}.get(instruction.format, layout.GLOBAL),)


def _size_bytes(name: str) -> int:
    """How much of memory a load, store or atomic touches for one lane."""
    words = [w for w in name.split("_") if w[1:].isdigit() and w[0] in "bfiu"]
    return max(1, int(words[-1][1:]) // 8) * (2 if "_pk_" in name else 1)


class MemoryAccess(Access):
    """The part of the translator that reads and writes memory."""

    generation: str
    now: Instruction
    local_base: Value | None = None

    def refuse(self, why: str = "is not translated yet") -> UnknownInstruction:
        """The error that names the instruction at hand."""
        raise NotImplementedError

    def scalar_operand(self, operand: Operand, type: str | None = None) -> Value:
        """An operand as one value for the wave."""
        raise NotImplementedError

    def memory(self, instruction: Instruction) -> None:
        """Translates one memory instruction."""
        name, format = instruction.name, instruction.format
        if format == "SMEM":
            self._scalar_load(instruction)
        elif format == "DS":
            self._local(instruction)
        elif "_format_" in name or "addtid" in name or "_tr_" in name or "_block" in name:
            raise self.refuse()
        elif format == "MUBUF":
            addresses, lanes = self._buffer_addresses(instruction)
            self._access(instruction, Where("address", [addresses]), lanes, 3)
        else:
            self._access(instruction, self._where(instruction), None, 2)

    def _access(
        self, instruction: Instruction, where: Where, lanes: Value | None, data: int
    ) -> None:
        """A load, store or atomic in those lanes of EXEC; its data are operands from `data` on."""
        name = instruction.name
        if "_atomic_" in name:
            self._atomic(instruction, name.split("_atomic_")[1], self._addresses(where),
                         list(instruction.src[data:]), lanes)
        elif "_load_" in name:
            self._load(name.split("_load_")[1], instruction.dst[0], where, lanes)
        else:
            self._store(name.split("_store_")[1], instruction.src[data], where, lanes)

    # ---- where ----
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
            return Where.offset(base, 0, offsets)
        if address.type == "b64":
            wide = self.vector_pair(address.index)
            if instruction.format == "FLAT" and offset >> 11 and self.generation != "RDNA4":
                raise self.refuse("has an offset with its sign bit set, which means nothing")
            if offset:
                wide = wide + offset
            return Where(
                "address", [self._unfolded(wide) if instruction.format == "FLAT" else wide]
            )
        return Where.offset(
            self.scalar_operand(scalar, "u64"), offset, self.vector(address.index)
        )

    def _unfolded(self, addresses: Value) -> Value:
        """Flat addresses with those of LDS and scratch replaced by where these are here."""
        window, low = addresses >> 32, addresses & 0xFFFFFFFF
        local = self.splat(self.context_field("LDS")) + low
        lane_bytes = self.splat(self.context_field("SCRATCH_LANE_BYTES"))
        own = lane_bytes * self.each_lane("u64", range(self.wave_size))
        private = self.splat(self.context_field("SCRATCH")) + own + low
        result = window.equals(APERTURES[235] >> 32).select(local, addresses)
        return window.equals(APERTURES[237] >> 32).select(private, result)

    def _buffer_addresses(self, instruction: Instruction) -> tuple[Value, Value]:
        """The lanes' addresses by a buffer resource, and which of them lie inside it.

        (AMD, "RDNA2 ISA", 8.1.5 and 8.1.8: addressing, swizzling and range checking.)
        """
        address, resource, soffset = instruction.src[:3]
        fields, size = instruction.fields, _size_bytes(instruction.name)
        words = [self.scalar(resource.index + j) for j in range(4)]
        base = words[0].to("u64") | ((words[1] & 0xFFFF).to("u64") << 32)
        stride = self.splat((words[1] >> 16) & 0x3FFF)
        index, offset = words[0].like(0), self.constant("u32", fields["offset"], True)
        adds_lane = (words[3] >> 23) & 1
        lanes = self.splat(index - adds_lane) & self.each_lane("u32", range(self.wave_size))
        if fields["idxen"]:
            lanes = lanes + self.vector(address.index)
        if fields["offen"]:
            offset = offset + self.vector(address.index + fields["idxen"])
        place = self._swizzled(words, stride, lanes, offset)
        inside = self._inside(words, stride, lanes, offset, size)
        start = base + self.scalar_operand(soffset, "u32").to("u64")
        return self.splat(start) + place.to("u64"), inside

    def _swizzled(self, words: list[Value], stride: Value, index: Value, offset: Value) -> Value:
        """Where in a buffer an element lies: rows of elements, or blocks of some rows' elements."""
        if self.generation in ("RDNA2", "CDNA2", "CDNA3"):  # 4 bytes of a row stay together
            swizzles, element_shift = (words[1] >> 31).differs(0), words[1].like(2)
        else:
            form = words[1] >> 30
            swizzles, element_shift = form.differs(0), form + 1
        linear = index * stride + offset
        rows_shift, shift = self.splat(((words[3] >> 21) & 3) + 3), self.splat(element_shift)
        one = offset.like(1)
        block = index >> rows_shift
        inner_index = index & ((one << rows_shift) - 1)
        inner_offset = offset & ((one << shift) - 1)
        start = (block * stride + ((offset >> shift) << shift)) << rows_shift
        mixed = start + (inner_index << shift) + inner_offset
        return self.splat(swizzles).select(mixed, linear)

    def _inside(
        self, words: list[Value], stride: Value, index: Value, offset: Value, size: int
    ) -> Value:
        """Which lanes lie inside a buffer, as OOB_SELECT in its last word wants it checked."""
        records, mode = self.splat(words[2]), (words[3] >> 28) & 3
        end = offset.to("u64") + size
        by_index = index < records
        structured = by_index & (stride.equals(0) | (end <= stride.to("u64")))
        result = self.splat(mode.equals(0)).select(structured, by_index)
        result = self.splat(mode.equals(2)).select(records.differs(0), result)
        return self.splat(mode.equals(3)).select(end <= records.to("u64"), result)

    def _addresses(self, where: Where) -> Value:
        """The address of each lane, as u64."""
        if where.form == "address":
            return where.arguments[0]
        base, offsets = where.arguments
        return self.splat(base) + offsets.to("u64")

    def _local_where(self, address: Operand, offset: int) -> Where:
        if self.local_base is None:
            self.local_base = self.context_field("LDS")
        return Where.offset(
            self.local_base, offset, self.vector(address.index), ordered.LOCAL_FORMS
        )

    # ---- what is moved ----
    def _load(
        self, word: str, dst: Operand, where: Where, lanes: Value | None = None
    ) -> None:
        kind = word.removeprefix("d16_").removeprefix("hi_").removesuffix("_d16_hi")
        kind = kind.removesuffix("_d16")
        kind = {"b16": "u16", "b8": "u8"}.get(kind, kind)
        results = ["u32"] * helpers.LOADS[kind][1]
        if where.form == "offset" and self.exec_full and lanes is None:
            load = self._load_known(kind, results, where)
            if "d16" not in word:
                self.defer(dst.index, len(results), load)
                return
            values = load()
        else:
            values = self._call(f"load_{kind}_{where.form}", results, where.arguments, lanes)
        if lanes is not None:
            values = [lanes.select(value, value.like(0)) for value in values]
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

    def _store(
        self, word: str, data: Operand, where: Where, lanes: Value | None = None
    ) -> None:
        kind = word.removeprefix("d16_hi_").removesuffix("_d16_hi")
        values = [self.vector(data.index + j) for j in range(helpers.STORES[kind][1])]
        if "d16_hi" in word:
            values = [values[0] >> 16]
        if where.form == "offset" and self.exec_full and lanes is None:
            self._store_known(kind, where, values)
            return
        self._call(f"store_{kind}_{where.form}", [], [*where.arguments, *values], lanes)

    def _atomic(
        self, instruction: Instruction, word: str, addresses: Value, data: list[Operand],
        lanes: Value | None = None,
    ) -> None:
        """`word` is like `add_u32`; the data of those with two are the new and the compared value.

        ds_cmpst, of older generations, has these the other way round.
        """
        name, _, type = word.rpartition("_")
        width = 32 if name == "pk_add" else int(type[1:])
        operation = _ATOMICS.get(name)
        if type[0] == "f" and name in ("add", "min", "max"):
            operation = f"{name}_f"
        elif name in ("min", "max"):
            operation = f"{name}_{type[0]}"
        elif operation == "cmpswap" and type[0] == "f":
            operation = "cmpswap_f"
        if operation is None or type == "bf16":
            raise self.refuse()
        first, second = data[0], data[-1]
        if "cmpswap" in operation:
            if instruction.format != "DS":
                second = first._replace(index=first.index + width // 32)
            elif name == "cmpst":
                first, second = second, first
        read = self.vector_pair if width == 64 else self.vector
        (result,) = self._call(
            f"atomic_{operation}_{width}", [f"u{width}"],
            [addresses, read(first.index), read(second.index)], lanes,
        )
        if instruction.dst:
            write = self.set_vector_pair if width == 64 else self.set_vector
            write(instruction.dst[0].index, result)

    # ---- the formats ----
    def _scalar_load(self, instruction: Instruction) -> None:
        name = instruction.name
        if name.endswith(("_inv", "_wb")):
            return
        if not instruction.src:
            raise self.refuse()
        base, offset = instruction.src
        distance = self.constant("u64", instruction.fields["offset"], False)
        if offset.index != NULL:
            distance = distance + self.scalar_operand(offset, "u32").to("u64")
        size = _size_bytes(name)
        if "buffer" in name:
            words = [self.scalar(base.index + j) for j in range(3)]
            start = words[0].to("u64") | ((words[1] & 0xFFFF).to("u64") << 32)
            stride = (words[1] >> 16) & 0x3FFF
            limit = words[2].to("u64") * stride.equals(0).select(1, stride).to("u64")
            inside = (distance + size) <= limit
        else:
            start, inside = self.scalar_operand(base, "u64"), None
        address = start + distance
        if size >= 4:
            address = address & ~3
        slot = self._slot()
        there = ordered.scalar(self, slot, address.text, size, lambda: self.emit(
            f"call ptr {self.helper_address('scalar_check')}"
            f"(ptr %context, ptr {slot}, i64 {address.text}, i64 {size}) cold"
        ))
        if inside is not None:
            zeros = self.emit(f"getelementptr i8, ptr %context, i64 {layout.CONTEXT_ZEROS}")
            there = self.emit(f"select i1 {inside.text}, ptr {there}, ptr {zeros}")
        self._scalar_words(name, instruction.dst[0].index, there, size)

    def _scalar_words(self, name: str, first: int, there: str, size: int) -> None:
        if size < 4:
            type = name.rsplit("_", 1)[1]
            narrow = self.value(f"load i{8 * size}, ptr {there}, align 1", type, False)
            self.set_scalar(first, narrow.to(f"{type[0]}32").as_type("u32"))
            return
        for j in range(0, size // 4, 2):
            place = self.emit(f"getelementptr i8, ptr {there}, i64 {4 * j}")
            if size // 4 - j == 1:
                value = self.value(f"load i32, ptr {place}, align 4", "u32", False)
                if first != NULL:
                    self.set_scalar(first + j, value)
            else:
                wide = self.value(f"load i64, ptr {place}, align 4", "u64", False)
                self.set_scalar_pair(first + j, wide)

    def _local(self, instruction: Instruction) -> None:
        name, fields = instruction.name, instruction.fields
        if "addtid" in name or "condxchg" in name or not instruction.src:
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
        kind = name.rsplit("_", 1)[1]
        registers = helpers.LOADS[kind][1]
        step = 4 * registers * (64 if "stride64" in name else 1)
        address = instruction.src[0]
        places = [
            self._local_where(address, fields[offset] * step) for offset in ("offset0", "offset1")
        ]
        if "storexchg" in name:
            dst = instruction.dst[0]
            for j, (data, where) in enumerate(zip(instruction.src[1:], places, strict=True)):
                one = Instruction(
                    instruction.pc, 0, "DS", name,
                    (dst._replace(type=kind, index=dst.index + j * registers),),
                )
                self._atomic(one, f"swap_{kind}", self._addresses(where), [data])
            return
        if "store" in name:
            for data, where in zip(instruction.src[1:], places, strict=True):
                self._store(kind, data, where)
            return
        dst = instruction.dst[0]
        for j, where in enumerate(places):
            self._load(kind, dst._replace(index=dst.index + j * registers), where)
