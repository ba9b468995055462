"""AMD instructions → LLVM IR: the vector and scalar instructions and the way through them.

Memory instructions are in `amd_memory`. The order of everything here is the hardware's: sources
are read before any result is written, both halves of a dual-issued pair included.
"""

from __future__ import annotations

from drivers.emulated.simt import amd_dpp, amd_salu, amd_valu, elementary
from drivers.emulated.simt.amd_bits import EXEC, NULL, VCC
from drivers.emulated.simt.amd_cross import CROSS_LANE
from drivers.emulated.simt.amd_memory import APERTURES, MEMORY_FORMATS, MemoryAccess
from drivers.emulated.simt.amd_packed import PACKED
from drivers.emulated.simt.amd_wmma import WMMA
from drivers.emulated.simt.instruction import Instruction, Operand, UnknownInstruction
from drivers.emulated.simt.registers import SCC, Registers
from drivers.emulated.simt.values import Value, float_bits

_FLOAT_CONSTANTS = (0.5, -0.5, 1.0, -1.0, 2.0, -2.0, 4.0, -4.0)
_INVERSE_TWO_PI = {16: 0x3118, 32: 0x3E22F983, 64: 0x3FC45F306DC9C882}

_Part = tuple[Value, Value | None, object]

_BRANCHES = {
    "s_branch", "s_cbranch_scc0", "s_cbranch_scc1", "s_cbranch_vccz", "s_cbranch_vccnz",
    "s_cbranch_execz", "s_cbranch_execnz",
}
# Hints, and waits for what translated code does at once.
_NOTHING = {
    "s_nop", "s_delay_alu", "s_waitcnt", "s_waitcnt_depctr", "s_wait_idle", "s_wait_event",
    "s_clause", "s_set_inst_prefetch_distance", "s_sleep", "s_setprio", "s_sendmsg",
    "s_icache_inv", "s_gl1_inv", "s_dcache_inv", "s_waitcnt_vscnt", "s_waitcnt_vmcnt",
    "s_waitcnt_expcnt", "s_waitcnt_lgkmcnt", "s_version", "s_ttracedata", "s_ttracedata_imm",
    "s_incperflevel", "s_decperflevel", "v_nop", "v_pipeflush", "ds_nop", "s_wakeup",
    "buffer_gl0_inv", "buffer_gl1_inv", "v_clrexcp", "s_singleuse_vdst", "s_wait_alu",
    "s_wait_loadcnt", "s_wait_storecnt", "s_wait_samplecnt", "s_wait_bvhcnt", "s_wait_expcnt",
    "s_wait_dscnt", "s_wait_kmcnt", "s_wait_loadcnt_dscnt", "s_wait_storecnt_dscnt",
    "s_prefetch_inst", "s_prefetch_inst_pc_rel", "s_prefetch_data", "s_prefetch_data_pc_rel",
    "s_buffer_prefetch_data", "global_inv", "global_wb", "global_wbinv",
    # The float mode stays the descriptor's: LLVM may move sums past a change of it.
    "s_denorm_mode", "s_round_mode", "s_setreg_b32", "s_setreg_imm32_b32",
}


def waits(instruction: Instruction) -> bool:
    """Whether it waits for the workgroup's other waves."""
    return instruction.name == "s_barrier"


def flow(instruction: Instruction) -> tuple[tuple[int, ...], bool]:
    """Where an instruction may go on, and whether a block ends with it."""
    name, after = instruction.name, instruction.pc + instruction.size_bytes
    if name in ("s_endpgm", "s_endpgm_saved"):
        return (), True
    if name == "s_barrier":
        if instruction.fields["imm"] not in (0, 0xFFFF):  # RDNA4 waits for a barrier by its number
            raise UnknownInstruction(
                f"Barrier {instruction.fields['imm']:#x} at pc {instruction.pc:#x} is none that "
                "the translator knows.", operation="translate",
            )
        return (after,), True
    if name == "s_branch":
        return (instruction.target,), True
    if name in _BRANCHES:
        return (instruction.target, after), True
    return (), False


def _registers(operand: Operand) -> set[int]:
    return set(range(operand.index, operand.index + operand.dwords))


def _is_full(operand: Operand, full: set[int]) -> bool:
    """Whether an operand of a scalar instruction is known to hold all ones (193 encodes −1)."""
    if operand.kind == "c":
        return operand.index == 193
    return operand.kind == "s" and _registers(operand) <= full


def full_after(instruction: Instruction, full: set[int]) -> None:
    """Follows which mask registers hold all ones, through `instruction`."""
    name, source = instruction.name, instruction.src
    written: set[int] = set()
    for operand in (*instruction.dst, *(instruction.second.dst if instruction.second else ())):
        if operand.kind == "s":
            written |= _registers(operand)
    ones = [_is_full(operand, full) for operand in source]
    result = False
    operation, _, width = name.rpartition("_b")
    if operation == "s_mov":
        result = ones[0]
    elif operation == "s_or":
        result = any(ones)
    elif operation == "s_and":
        result = all(ones)
    elif operation.endswith(("_saveexec", "_wrexec")):
        exec = set(range(EXEC, EXEC + int(width) // 32))
        if operation.endswith("_wrexec"):
            full -= written | exec
            return
        saved = exec <= full
        after = (operation == "s_and_saveexec" and saved and ones[0]) or (
            operation == "s_or_saveexec" and (saved or ones[0])
        )
        full -= written | exec
        full |= (written if saved else set()) | (exec if after else set())
        return
    full -= written
    if result:
        full |= written


def _part(operand: Operand, word: Value) -> Value:
    """The half of a register that a 16-bit operand names, as u16."""
    return (word >> 16 if operand.half == 1 else word).to("u16")


def _signed(operand: Operand, value: Value) -> Value:
    """A source with its sign modifiers."""
    if operand.absolute:
        value = value.abs()
    return -value if operand.negate else value


class Translator(MemoryAccess, Registers):
    """Translates the instructions of one block, in order."""

    def __init__(
        self, exec_full: bool, slots: dict[int, int], wave_size: int, generation: str = "RDNA3"
    ) -> None:
        Registers.__init__(self, exec_full=exec_full, wave_size=wave_size)
        self.generation = generation
        self.slots = slots
        self.patterns, self.groups = {}, {}
        self.carries: dict[int, tuple[Value, int, Value, list[_Part]]] = {}
        self._pending: list[_Part] = []
        self.now: Instruction

    def refuse(self, why: str = "is not translated yet") -> UnknownInstruction:
        """The error that names the instruction at hand."""
        i = self.now
        return UnknownInstruction(
            f"{i.name} ({i.format}) at pc {i.pc:#x} {why}.", operation="translate"
        )

    # ---- operands ----
    def constant_bits(self, operand: Operand, type: str) -> int:
        """The bits of an inline constant or literal as a value of `type`."""
        width = int(type[1:])
        index = operand.index
        if operand.kind == "l":
            if width == 64 and type[0] == "f":
                return index << 32
            if width == 64 and type[0] == "i" and index >> 31:
                return index - (1 << 32)
            return index
        if index <= 208:
            return index - 128 if index <= 192 else 192 - index
        bits = 16 if type[0] == "p" else width  # for packed halves a float16 in the low one
        if type[0] == "p":
            bits = 16
        if index == 248:
            return _INVERSE_TWO_PI[bits]
        return float_bits(_FLOAT_CONSTANTS[index - 240], bits)

    def scalar_operand(self, operand: Operand, type: str | None = None) -> Value:
        """An operand as one value for the wave."""
        type = type or operand.type
        bare = "u" + type[1:] if type[0] in "pbm" else type
        if operand.kind in "cl":
            return self.constant(bare, self.constant_bits(operand, type), False)
        index = operand.index
        if bare[1:] == "64":
            if index == NULL:
                return self.constant(bare, 0, False)
            if index in APERTURES:
                return self.constant(bare, APERTURES[index], False)
            return self.scalar_pair(index).as_type(bare)
        value = self._scalar_register(index)
        if bare[1:] == "16":
            return value.to("u16").as_type(bare)
        return value.as_type(bare)

    def _scalar_register(self, index: int) -> Value:
        if index == NULL:
            return self.constant("u32", 0, False)
        if index == SCC:
            return self.scalar(SCC).to("u32")
        if index in (251, 252):
            return self.bits(VCC if index == 251 else EXEC).equals(0).to("u32")
        if index > 127:
            raise self.refuse(f"reads source {index}, which is not translated yet")
        return self.scalar(index)

    def operand(self, operand: Operand) -> Value:
        """An operand as one value for each lane, with its modifiers."""
        type = operand.type
        if type[0] == "m":
            if operand.kind == "c":
                return self.constant("m1", operand.index == 193, True)
            return self.mask(operand.index)
        bare = "u" + type[1:] if type[0] in "pb" else type
        if operand.kind == "v":
            value = self._vector_operand(operand, bare)
        elif operand.kind in "cl":
            value = self.constant(bare, self.constant_bits(operand, type), True)
        else:
            value = self.splat(self.scalar_operand(operand, bare))
        return _signed(operand, value)

    def _vector_operand(self, operand: Operand, type: str) -> Value:
        width = int(type[1:])
        if width == 64:
            return self.vector_pair(operand.index).as_type(type)
        if width == 16:
            return _part(operand, self.vector(operand.index)).as_type(type)
        return self.vector(operand.index, type)

    def modified_word(self, operand: Operand, word: Value) -> Value:
        """An operand whose register was read already, as `operand` gives it."""
        type = operand.type
        bare = "u" + type[1:] if type[0] in "pb" else type
        value = _part(operand, word) if type[1:] == "16" else word
        return _signed(operand, value.as_type(bare))

    def set_operand(self, operand: Operand, value: Value) -> None:
        """Writes a lane-wise result."""
        width = value.width
        if operand.kind == "s":
            if operand.index == NULL:
                return
            self.set_mask(operand.index, value)
            if operand.index == EXEC:
                self.exec_changed()
            return
        if width == 64:
            self.set_vector_pair(operand.index, value)
        elif width == 16:
            half = value.as_type("u16").to("u32")
            old = self.vector(operand.index)
            if operand.half == 1:
                self.set_vector(operand.index, (old & 0xFFFF) | (half << 16))
            else:
                self.set_vector(operand.index, (old & 0xFFFF0000) | half)
        else:
            self.set_vector(operand.index, value)

    # ---- one instruction ----
    def translate(self, instruction: Instruction) -> None:
        """Adds the code of an instruction that does not end a block."""
        self.now, self.pc = instruction, instruction.pc
        name, format = instruction.name, instruction.format
        if name in _NOTHING:
            if name.endswith("_inv"):  # loads behind it see what those before may not have seen
                self.settle()
            return
        if name == "s_barrier_signal":
            if instruction.src[0].kind != "c" or instruction.src[0].index != 193:  # −1
                raise self.refuse("signals a named barrier, which is not translated yet")
            return
        if "control" in instruction.fields:
            self._controlled(instruction)
        elif name in CROSS_LANE:
            CROSS_LANE[name](self, instruction)
        elif format in MEMORY_FORMATS:
            self.memory(instruction)
        elif name in WMMA:
            WMMA[name](self, instruction)
        elif name.startswith(("v_wmma", "v_swmmac")):
            raise self.refuse()
        elif name in PACKED:
            PACKED[name](self, instruction)
        elif name.startswith("v_s_"):
            self._function_of_scalar(instruction)
        elif format == "VOPD":
            self._dual(instruction)
        elif format[0] == "V":
            self._write_vector(instruction, self._vector(instruction))
        else:
            self._scalar(instruction)

    # ---- vector ----
    def _vector(self, instruction: Instruction) -> tuple[Value, ...]:
        name = instruction.name.replace("_dual_", "_")
        fused = self._fuse_carry(instruction)
        if fused is not None:
            return fused
        return self._compute(
            instruction, name, [self.operand(operand) for operand in instruction.src]
        )

    def _compute(
        self, instruction: Instruction, name: str, source: list[Value]
    ) -> tuple[Value, ...]:
        """The results of an instruction for these sources, saturated where it asks for that."""
        semantics = amd_valu.find(name)
        if semantics is None and name in amd_valu.ACCUMULATING:
            semantics = amd_valu.ACCUMULATING[name]
            source.append(self.operand(instruction.dst[0]))
        if name.startswith("v_div_fmas"):
            source.append(self.mask(VCC))
            semantics = elementary.div_fmas
        if semantics is None:
            raise self.refuse()
        if instruction.fields.get("clamp") and instruction.dst[0].type[0] in "iu":
            semantics = amd_valu.saturating(name, semantics, instruction.dst[0].type)
            if semantics is None:
                raise self.refuse("saturates integers, which is not translated yet")
        result = semantics(*source)
        return result if isinstance(result, tuple) else (result,)

    def _controlled(self, instruction: Instruction) -> None:
        """An instruction with DPP or SDWA."""
        if instruction.name in PACKED or instruction.name in CROSS_LANE:
            raise self.refuse("with DPP or SDWA is not translated yet")
        source, lanes = amd_dpp.sources(self, instruction)
        results = self._compute(instruction, instruction.name, source)
        for operand, result in zip(instruction.dst, results, strict=True):
            value = self._modified(instruction, result)
            if operand.kind == "s":
                self.set_operand(operand, value if lanes is None else value & lanes)
            elif amd_dpp.is_sdwa(instruction.fields):
                amd_dpp.put(self, instruction, value)
            else:
                if lanes is not None:
                    value = lanes.select(value, self.operand(operand).as_type(value.type))
                self.set_operand(operand, value)

    def _write_vector(self, instruction: Instruction, results: tuple[Value, ...]) -> None:
        if not results:
            return  # written already, with the pair that it completes
        results = tuple(self._modified(instruction, result) for result in results)
        for operand, result in zip(instruction.dst, results, strict=True):
            self.set_operand(operand, result)
        self._remember_carry(instruction, results)

    def _modified(self, instruction: Instruction, result: Value) -> Value:
        """Output modifiers: omod scales, clamp limits floats to 0…1."""
        fields = instruction.fields
        if result.type == "m1":
            return result
        omod = fields.get("omod", 0)
        if omod and result.is_float:
            result = result * (2.0, 4.0, 0.5)[omod - 1]
        if fields.get("clamp") and result.is_float:
            result = (result > 0.0).select(result, result.like(0.0)).min(1.0)
        return result

    def _function_of_scalar(self, instruction: Instruction) -> None:
        """RDNA4's functions that the vector unit computes of one scalar: `v_s_exp_f32`."""
        (operand,), (result,) = instruction.src, instruction.dst
        value = self.scalar_operand(operand)
        if operand.absolute:
            value = value.abs()
        (found,) = self._compute(
            instruction, f"v_{instruction.name.removeprefix('v_s_')}",
            [-value if operand.negate else value],
        )
        bits = self._modified(instruction, found).as_type(f"u{found.width}")
        self.set_scalar(result.index, bits.to("u32"))

    def _dual(self, instruction: Instruction) -> None:
        assert instruction.second is not None
        first, second = self._vector(instruction), self._vector(instruction.second)
        self._write_vector(instruction, first)
        self._write_vector(instruction.second, second)

    # ---- 64-bit sums made of two 32-bit ones ----
    def _remember_carry(self, instruction: Instruction, results: tuple[Value, ...]) -> None:
        if instruction.name != "v_add_co_u32" or instruction.dst[1].index == NULL:
            return
        if instruction.fields.get("clamp"):
            return
        mask = instruction.dst[1].index
        self.carries[mask] = (self.masks[mask], instruction.dst[0].index, results[0],
                              self._pending)

    def _fuse_carry(self, instruction: Instruction) -> tuple[Value, ...] | None:
        """v_add_co_u32 and v_add_co_ci_u32 on its carry: one addition of 64 bits."""
        if instruction.name == "v_add_co_u32":
            self._pending = [self._low_part(operand) for operand in instruction.src]
            return None
        if instruction.name != "v_add_co_ci_u32" or instruction.fields.get("clamp"):
            return None
        carry_in = instruction.src[2]
        known = self.carries.get(carry_in.index)
        if known is None or self.masks.get(carry_in.index) is not known[0]:
            return None
        _, low_register, low_value, parts = known
        sums = [
            self._join(part, high) for part, high in zip(parts, instruction.src, strict=False)
        ]
        total = sums[0] + sums[1]
        high = (total >> 32).to("u32")
        carry = total < sums[0]
        state = self.vectors.get(low_register)
        if (
            instruction.dst[0].index == low_register + 1
            and state is not None
            and state.views["u32"].text == low_value.text
        ):
            self._write_vector_high(instruction, high, carry, low_register, total)
            return ()
        return high, carry

    def _write_vector_high(
        self, instruction: Instruction, high: Value, carry: Value, low: int, total: Value
    ) -> None:
        self.set_operand(instruction.dst[0], high)
        self.set_operand(instruction.dst[1], carry)
        self.wide[low] = total

    def _low_part(self, operand: Operand) -> _Part:
        """A low operand, the 64-bit value that it is the low half of, and of which high half."""
        value = self.operand(operand)
        if operand.kind == "v" and operand.index in self.wide:
            high = self.vectors.get(operand.index + 1)
            return value, self.wide[operand.index], (operand.index + 1, high)
        if operand.kind == "s" and operand.index < 106 and operand.index % 2 == 0:
            pair = self.scalar_pair(operand.index)
            return value, pair, (operand.index + 1, self.scalars.get(operand.index + 1))
        return value, None, None

    def _join(self, part: _Part, high: Operand) -> Value:
        low, pair, which = part
        if pair is not None and high.kind in "vs":
            known = self.vectors if high.kind == "v" else self.scalars
            if which == (high.index, known.get(high.index)):
                return pair if pair.lanes else self.splat(pair)
        return low.to("u64") | (self.operand(high).to("u64") << 32)

    # ---- scalar ----
    def _set_scalar(self, operand: Operand, value: Value) -> None:
        if operand.index == NULL:
            return
        if operand.dwords == 2:
            self.set_scalar_pair(operand.index, value)
        elif value.width == 16:
            self.set_scalar(operand.index, value.as_type("u16").to("u32"))
        else:
            self.set_scalar(operand.index, value.as_type("u32"))
        if _registers(operand).intersection(self.exec_registers):
            self.exec_changed()

    def _scalar(self, instruction: Instruction) -> None:
        name, format = instruction.name, instruction.format
        if format == "SOPC":
            self.set_scalar(SCC, self._scalar_comparison(instruction))
        elif format == "SOPK":
            self._scalar_immediate(instruction)
        elif "_saveexec_" in name or "_wrexec_" in name:
            self._saveexec(instruction)
        elif name == "s_getpc_b64":
            entry = self.context_field("ENTRY")
            self._set_scalar(instruction.dst[0], entry + (instruction.pc + 4))
        elif name.startswith(("s_cmov_b", "s_bitset")):
            old = self.scalar_operand(instruction.dst[0])
            new = self.scalar_operand(instruction.src[0])
            if "bitset" in name:
                bit = old.like(1) << new.to(old.type)
                value = old | bit if "set1" in name else old & ~bit
            else:
                value = self.scalar(SCC).select(new, old)
            self._set_scalar(instruction.dst[0], value)
        else:
            source = [self.scalar_operand(operand) for operand in instruction.src]
            if name in amd_salu.NONZERO:
                result = amd_salu.NONZERO[name](*source)
                self._set_scalar(instruction.dst[0], result)
                self.set_scalar(SCC, result.differs(0))
                return
            semantics = amd_salu.OTHERS.get(name)
            if semantics is None:
                raise self.refuse()
            if name in amd_salu.READS_SCC:
                source.append(self.scalar(SCC))
            if name in amd_salu.ACCUMULATING:
                source.append(self.scalar_operand(instruction.dst[0]))
            result = semantics(*source)
            if isinstance(result, tuple):
                result, carry = result
                self.set_scalar(SCC, carry)
            self._set_scalar(instruction.dst[0], result)

    def _scalar_comparison(self, instruction: Instruction) -> Value:
        name = instruction.name
        first, second = (self.scalar_operand(operand) for operand in instruction.src)
        if name.startswith("s_bitcmp"):
            bit = (first >> second.to(first.type)) & 1
            return bit.equals(int(name[8]))
        if first.is_float:
            return first.fcmp(amd_valu.FLOAT_COMPARISONS[name.split("_")[2]], second)
        result: Value = amd_salu.COMPARISONS[name.split("_")[2]](first, second)
        return result

    def _scalar_immediate(self, instruction: Instruction) -> None:
        name, value = instruction.name, instruction.fields["imm"]
        signed = value - 0x10000 if value & 0x8000 else value
        if name.startswith("s_cmpk_"):
            _, _, comparison, type = name.split("_")
            first = self.scalar_operand(instruction.src[0], type)
            number = signed if type == "i32" else value
            self.set_scalar(SCC, amd_salu.COMPARISONS[comparison](first, number))
            return
        if name not in ("s_movk_i32", "s_cmovk_i32", "s_addk_i32", "s_mulk_i32"):
            raise self.refuse()
        dst = instruction.dst[0]
        constant = self.constant("i32", signed, False)
        old = None if name == "s_movk_i32" else self.scalar_operand(dst, "i32")
        if old is None:
            result = constant
        elif name == "s_cmovk_i32":
            result = self.scalar(SCC).select(constant, old)
        elif name == "s_mulk_i32":
            result = old * constant
        else:
            result, overflow = amd_salu.OTHERS["s_add_i32"](old, constant)
            self.set_scalar(SCC, overflow)
        self._set_scalar(dst, result)

    def _saveexec(self, instruction: Instruction) -> None:
        name = instruction.name.removeprefix("s_").rpartition("_b")[0]
        operation, _, kind = name.rpartition("_")
        old = self.bits(EXEC)
        new = amd_salu.SAVEEXEC[operation](self.scalar_operand(instruction.src[0]), old)
        self.set_bits(EXEC, new)
        self.set_scalar(SCC, new.differs(0))
        self._set_scalar(instruction.dst[0], new if kind == "wrexec" else old)
        self.exec_changed()

    # ---- the ways out of a block ----
    def condition(self, instruction: Instruction) -> Value:
        """Whether a conditional branch is taken."""
        self.now = instruction
        what = instruction.name.rsplit("_", 1)[1]
        if what.startswith("scc"):
            scc = self.scalar(SCC)
            return scc if what == "scc1" else ~scc
        register = self.bits(VCC if what.startswith("vcc") else EXEC)
        return register.equals(0) if what.endswith("ccz") or what == "execz" else (
            register.differs(0)
        )

