"""CDNA instructions → LLVM IR: what AMD's other generations do not have."""

from __future__ import annotations

from collections.abc import Callable

from drivers.emulated.simt import amd
from drivers.emulated.simt.cdna_bits import CDNA2, CDNA3
from drivers.emulated.simt.cdna_matrix import mfma
from drivers.emulated.simt.instruction import Instruction, Operand
from drivers.emulated.simt.values import Value

_PAIRS: dict[str, Callable[..., Value]] = {
    "v_pk_fma_f32": Value.fma,
    "v_pk_mul_f32": lambda a, b: a * b,
    "v_pk_add_f32": lambda a, b: a + b,
}


_SHORT = {name for generation in (CDNA2, CDNA3) for format in ("VOP1", "VOP2")
          for name in generation.opcodes[format].values()}


class Translator(amd.Translator):
    """Translates the instructions of one block, in order."""

    def set_operand(self, operand: Operand, value: Value) -> None:
        """Writes a lane-wise result; 16 bits of what has a short encoding clear those above."""
        clears = self.now.name in _SHORT or "_legacy_" in self.now.name
        if operand.kind == "v" and value.width == 16 and clears and operand.half < 0:
            self.set_vector(operand.index, value.as_type("u16").to("u32"))
        else:
            super().set_operand(operand, value)

    def translate(self, instruction: Instruction) -> None:
        """Adds the code of an instruction that does not end a block."""
        self.now = instruction
        if instruction.name.startswith(("v_mfma", "v_smfmac")):
            mfma(self, instruction)
        elif instruction.name in _PAIRS or instruction.name == "v_pk_mov_b32":
            self._pair_of_floats(instruction)
        else:
            super().translate(instruction)

    def _pair_of_floats(self, i: Instruction) -> None:
        """Two results in neighbouring registers, each of either half of the sources."""
        fields, results = i.fields, []
        for upper in (0, 1):
            values = []
            for place, operand in enumerate(i.src):
                choice = fields["op_sel_hi" if upper else "op_sel"] >> place & 1
                if i.name == "v_pk_mov_b32":  # the first source gives the low half, then the other
                    choice = fields["op_sel"] >> place & 1
                value = self._half_of_pair(operand, choice)
                negate = fields["neg_hi" if upper else "neg_lo"] >> place & 1
                values.append(-value if negate else value)
            if i.name == "v_pk_mov_b32":
                results.append(values[upper])
                continue
            result = _PAIRS[i.name](*values)
            if fields["clamp"]:
                result = (result > 0.0).select(result, result.like(0.0)).min(1.0)
            results.append(result)
        for upper, result in enumerate(results):
            self.set_vector(i.dst[0].index + upper, result.as_type("u32"))

    def _half_of_pair(self, operand: Operand, upper: int) -> Value:
        """The lower or the upper float of a 64-bit operand; a constant is the lower one."""
        if operand.kind == "v":
            return self.vector(operand.index + upper, "f32")
        if operand.kind == "s":
            return self.splat(self.scalar(operand.index + upper).as_type("f32"))
        if upper:
            raise self.refuse("takes the upper half of a constant, which is not translated yet")
        return self.constant("f32", self.constant_bits(operand, "f32"), True)
