"""One kernel of an AMD GPU → one LLVM function: `i32 @wave(ptr state, ptr context, i32 resume)`.

Registers live in stack slots between blocks. At a barrier the registers that are still wanted are
stored in the wave's state, where it does not hold their values yet, and the function returns the
barrier's number; called again with that number, it loads them and goes on behind the barrier. It
returns 0 at the kernel's end, −1 when the budget of backward jumps is used up.
"""

from __future__ import annotations

from collections.abc import Callable

from drivers.emulated.simt import layout
from drivers.emulated.simt.amd import Translator, full_after
from drivers.emulated.simt.instruction import Instruction
from drivers.emulated.simt.program import (
    Block,
    Program,
    known_full,
    live_at_start,
    unsaved_at_start,
)
from drivers.emulated.simt.registers import EXEC, SCC
from drivers.emulated.simt.values import Value, llvm_type

_VECTOR_BASE = 1000
"""Vector registers in the sets of the liveness analysis are numbered from here on."""

Making = Callable[[bool, dict[int, int], int], Translator]
"""What makes the translator of a block: of whether EXEC is full, slots, and the wave size."""


def _label(pc: int) -> str:
    return f"pc{pc:x}"


class _Function:
    """The text under construction."""

    def __init__(
        self, program: Program[Instruction], translator: Making, wave_size: int,
        slots: dict[int, int], all_lanes: bool,
    ) -> None:
        self.program, self.translator, self.wave_size = program, translator, wave_size
        self.exec = frozenset(range(EXEC, EXEC + wave_size // 32))
        entry: frozenset[int] = self.exec if all_lanes else frozenset()
        self.full = known_full(program, entry, full_after)
        self.blocks: dict[int, Translator] = {}
        self.conditions: dict[int, Value] = {}
        for start, block in program.blocks.items():
            self.blocks[start] = self._translate(block, slots)
        uses, definitions, self.written = {}, {}, {}
        for start, build in self.blocks.items():
            uses[start] = build.scalar_uses | {_VECTOR_BASE + v for v in build.vector_uses}
            definitions[start] = build.written_scalars | {
                _VECTOR_BASE + v for v in build.vector_definitions
            }
            self.written[start] = build.written_scalars | {
                _VECTOR_BASE + v for v in build.written_vectors
            }
        self.live = live_at_start(program, uses, definitions)
        self.resumes: dict[int, int] = {}
        for start, block in program.blocks.items():
            if block.instructions[-1].name == "s_barrier":
                self.resumes[start] = len(self.resumes) + 1
        self.unsaved = unsaved_at_start(program, self.written, self.resumes.keys())

    def _translate(self, block: Block[Instruction], slots: dict[int, int]) -> Translator:
        full = set(self.full.get(block.start, ()))
        build = self.translator(self.exec <= full, slots, self.wave_size)
        # One numbering of values for each block keeps their names apart.
        build.prefix = f"%b{block.start:x}."
        for instruction in block.instructions:
            if instruction.format == "SOPP" and (
                instruction.name.startswith(("s_branch", "s_cbranch", "s_endpgm"))
                or instruction.name == "s_barrier"
            ):
                if instruction.name.startswith("s_cbranch"):
                    self.conditions[block.start] = build.condition(instruction)
                break
            build.translate(instruction)
            full_after(instruction, full)
            build.exec_full = self.exec <= full
        build.settle()
        return build

    def _place(self, register: int) -> tuple[str, str, int]:
        """LLVM type, slot and offset in a wave's state of a register of the analysis."""
        if register >= _VECTOR_BASE:
            index = register - _VECTOR_BASE
            at = layout.STATE_VECTORS + 4 * self.wave_size * index
            return llvm_type("u32", self.wave_size), f"%v{index}", at
        if register == SCC:
            return "i1", f"%s{SCC}", layout.STATE_SCC
        return "i32", f"%s{register}", layout.STATE_SCALARS + 4 * register

    # ---- the end of a block ----
    def _jump(self, source: int, target: int) -> str:
        """The label to jump to; backward jumps go through a check of the budget."""
        if target > source:
            return _label(target)
        return f"back.{source:x}.{target:x}"

    def _check(self, source: int, target: int) -> list[str]:
        if target > source:
            return []
        name = f"back.{source:x}.{target:x}"
        return [
            f"{name}:",
            f"  %{name}.at = getelementptr i8, ptr %context, i64 {layout.CONTEXT_BUDGET}",
            f"  %{name}.old = load i64, ptr %{name}.at",
            f"  %{name}.new = sub i64 %{name}.old, 1",
            f"  store i64 %{name}.new, ptr %{name}.at",
            f"  %{name}.out = icmp slt i64 %{name}.new, 0",
            f"  br i1 %{name}.out, label %{name}.stop, label %{_label(target)}",
            f"{name}.stop:",
            f"  %{name}.pc = getelementptr i8, ptr %context, i64 {layout.CONTEXT_PC}",
            f"  %{name}.entry.at = getelementptr i8, ptr %context, i64 {layout.CONTEXT_ENTRY}",
            f"  store i64 {target}, ptr %{name}.pc",
            "  br label %exhausted",
        ]

    def _finish(self, block: Block[Instruction], build: Translator) -> list[str]:
        """Stores what is wanted later and leaves the block; returns blocks that this needs."""
        last = block.instructions[-1]
        wanted = set().union(*(self.live[s] for s in block.successors))
        condition = self.conditions.get(block.start)
        build.store(
            {r - _VECTOR_BASE for r in wanted if r >= _VECTOR_BASE},
            {r for r in wanted if r < _VECTOR_BASE},
        )
        if last.name.startswith("s_endpgm"):
            build.do("ret i32 0")
            return []
        here = block.start
        if last.name == "s_barrier":
            self._spill(build, wanted & (self.unsaved[here] | self.written[here]))
            build.do(f"ret i32 {self.resumes[here]}")
            return []
        targets = list(dict.fromkeys(block.successors))
        labels = [self._jump(last.pc, t) for t in block.successors]
        if condition is not None:
            build.do(f"br i1 {condition.text}, label %{labels[0]}, label %{labels[1]}")
        else:
            build.do(f"br label %{labels[0]}")
        return [line for target in targets for line in self._check(last.pc, target)]

    def _spill(self, build: Translator, wanted: set[int]) -> None:
        for register in sorted(wanted):
            type, slot, offset = self._place(register)
            value = build.emit(f"load {type}, ptr {slot}")
            at = build.emit(f"getelementptr i8, ptr %state, i64 {offset}")
            build.do(f"store {type} {value}, ptr {at}")

    def _reload(self, name: str, wanted: set[int], target: int) -> list[str]:
        lines = [f"{name}:"]
        for register in sorted(wanted):
            type, slot, offset = self._place(register)
            value = f"%{name}.{slot[1:]}"
            lines += [
                f"  {value}.at = getelementptr i8, ptr %state, i64 {offset}",
                f"  {value} = load {type}, ptr {value}.at",
                f"  store {type} {value}, ptr {slot}",
            ]
        return [*lines, f"  br label %{_label(target)}"]

    def text(self) -> str:
        """The module."""
        body: list[str] = []
        declarations: set[str] = set()
        local: set[str] = set()
        registers: set[int] = set()
        for start, block in self.program.blocks.items():
            build = self.blocks[start]
            extra = self._finish(block, build)
            body += [f"{_label(start)}:", *build.lines, *extra]
            declarations |= build.declarations
            local |= build.locals
            registers |= build.scalar_uses | build.written_scalars
            registers |= {_VECTOR_BASE + v for v in build.vector_uses | build.vectors.keys()}
        vector_align = 4 * self.wave_size
        head = ["define i32 @wave(ptr %state, ptr %context, i32 %resume) "
                '"prefer-vector-width"="512" {', "entry:",
                f"  %lanes = alloca {llvm_type('u32', self.wave_size)}, align {vector_align}"]
        head += [f"  {line}" for line in sorted(local)]
        for register in sorted(registers):
            type, slot, _ = self._place(register)
            head.append(f"  {slot} = alloca {type}, "
                        f"align {vector_align if register >= _VECTOR_BASE else 4}")
        cases = "".join(f" i32 {n}, label %resume{n}" for n in self.resumes.values())
        head.append(f"  switch i32 %resume, label %begin [{cases} ]")
        head += self._reload("begin", self.live[0], 0)
        for start, number in self.resumes.items():
            (target,) = self.program.blocks[start].successors
            head += self._reload(f"resume{number}", self.live[target], target)
        tail = ["exhausted:", "  ret i32 -1", "}"]
        return "\n".join([*sorted(declarations), *head, *body, *tail]) + "\n"


def translate(
    translator: Making, program: Program[Instruction], wave_size: int, slots: dict[int, int],
    all_lanes: bool,
) -> str:
    """The LLVM IR of a kernel; `slots` numbers its memory instructions by their pc.

    `all_lanes` makes the version for waves that start with EXEC full.
    """
    return _Function(program, translator, wave_size, slots, all_lanes).text()
