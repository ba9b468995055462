"""One kernel of an NVIDIA GPU → one LLVM function: `i32 @wave(ptr state, ptr context, i32 resume)`.

There are two copies of a kernel's blocks. In the *whole* one all 32 lanes are at the same place;
its registers are LLVM's own. Where a branch parts the lanes, or some have ended, the registers go
to the wave's state, and the *split* copy goes on, which keeps them there: each place of the code
has a mask of the lanes that are to go on from it, and the dispatcher takes the first place that has
one. Lanes meet at BSYNC, WARPSYNC and BAR, and where one path reaches another's first place. When
all 32 lanes are together again, the whole copy goes on.

At a barrier of the block the function returns a number, by which it is resumed; 0 at the kernel's
end; −1 where jumps outnumber the budget, or where lanes wait for each other.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from drivers.emulated.simt import layout, sass_barrier
from drivers.emulated.simt.program import Block, Program, live_at_start
from drivers.emulated.simt.sass import Translator
from drivers.emulated.simt.sass_decode import PT, Instruction
from drivers.emulated.simt.sass_flow import ENDING, by_register, conditional, numbered
from drivers.emulated.simt.sass_registers import ALIVE, BARRIER, EXEC
from drivers.emulated.simt.sass_text import LANES, STATE, VECTOR_BASE, Text
from drivers.emulated.simt.values import Value, llvm_type


@dataclass
class _Copy:
    """The blocks of one copy."""

    whole: bool
    blocks: dict[int, Translator] = field(default_factory=dict)
    conditions: dict[int, Value] = field(default_factory=dict)
    """For each lane or (a scalar) for the warp: whether the end of a block has its effect."""
    values: dict[int, Value] = field(default_factory=dict)
    """What else it depends on: where a jump leads, or the lanes for which a WARPSYNC waits."""
    meetings: dict[int, tuple[Value, Value]] = field(default_factory=dict)
    """At barriers with numbers: what the warp waits for, and the lanes that vote for it."""


def _jumps(i: Instruction) -> bool:
    """Whether it leads to a place that stands in it."""
    return i.name in ("BRA", "CALL") and not by_register(i)


def _label(pc: int, whole: bool) -> str:
    return f"pc{pc:x}" if whole else f"pc{pc:x}.split"


class _Function(Text):
    """The text under construction."""

    def __init__(
        self, program: Program[Instruction], slots: dict[int, int], all_lanes: bool
    ) -> None:
        super().__init__()
        self.program, self.slots, self.all_lanes = program, slots, all_lanes
        self.returns = sorted(
            last.pc + last.size_bytes
            for last in (block.instructions[-1] for block in program.blocks.values())
            if last.name == "CALL"
        )
        for block in program.blocks.values():
            last = block.instructions[-1]
            if last.name == "RET":
                block.successors = (*block.successors, *self.returns)
        self.whole, self.split = _Copy(True), _Copy(False)
        self.numbered = any(map(numbered, program.instructions))
        for block in program.blocks.values():
            self._translate(self.whole, block)
            self._translate(self.split, block)
        uses, definitions = {}, {}
        for start, build in self.whole.blocks.items():
            uses[start] = build.scalar_uses | {VECTOR_BASE + v for v in build.vector_uses}
            definitions[start] = build.written_scalars | {
                VECTOR_BASE + v for v in build.vector_definitions
            }
        self.live = live_at_start(program, uses, definitions)
        self.sites = [start for start, block in program.blocks.items()
                      if block.instructions[-1].name in ("BSYNC", "WARPSYNC")]
        self.barriers = [start for start, block in program.blocks.items()
                         if block.instructions[-1].name == "BAR"]
        self.places = {start: n for n, start in enumerate(sorted(program.blocks))}

    def _translate(self, copy: _Copy, block: Block[Instruction]) -> None:
        build = Translator(copy.whole, self.slots)
        if not copy.whole:
            build.home = STATE
        build.prefix = f"%{'w' if copy.whole else 's'}{block.start:x}."
        for instruction in block.instructions:
            if instruction.name in ENDING:
                build.begin(instruction)
                build.guard = build.uniform_guard = None
                if conditional(instruction):
                    copy.conditions[block.start] = _condition(build, instruction)
                if by_register(instruction):
                    copy.values[block.start] = build.register(instruction.operand("a").number)
                elif instruction.name == "WARPSYNC":
                    copy.values[block.start] = _members(build, instruction)
                elif instruction.name == "BSYNC":
                    build.scalar(BARRIER + instruction.operand("B16").number)
                elif instruction.name == "BAR" and self.numbered:
                    copy.meetings[block.start] = (
                        sass_barrier.meeting(build, instruction),
                        sass_barrier.ballot(build, instruction),
                    )
                break
            build.translate(instruction)
        build.guard = None
        build.settle()
        copy.blocks[block.start] = build

    # ---- the whole copy ----
    def _jump(self, source: int, target: int, extra: list[str]) -> str:
        """The label to jump to in the whole copy; backward jumps go through the budget."""
        if target > source:
            return _label(target, True)
        name = f"back{source:x}.{target:x}"
        if f"{name}:" not in extra:
            extra += [f"{name}:", *self._budget(target, _label(target, True))]
        return name

    def _budget(self, pc: int, label: str) -> list[str]:
        old, new, at = self._fresh(), self._fresh(), self._fresh()
        lines = [f"  {at} = getelementptr i8, ptr %context, i64 {layout.CONTEXT_BUDGET}",
                 f"  {old} = load i64, ptr {at}", f"  {new} = sub i64 {old}, 1",
                 f"  store i64 {new}, ptr {at}"]
        place, stop = self._fresh(), self._new_label()
        self._branch(f"icmp slt i64 {new}, 0", stop, label, lines)
        return [*lines, f"{stop}:",
                f"  {place} = getelementptr i8, ptr %context, i64 {layout.CONTEXT_PC}",
                f"  store i64 {pc}, ptr {place}", "  br label %exhausted"]

    def _finish_whole(self, block: Block[Instruction]) -> list[str]:
        """The end of a block where all lanes are together."""
        build, last = self.whole.blocks[block.start], block.instructions[-1]
        wanted = self._wanted(block)
        self._store(build, wanted)
        lines, extra = build.lines, []  # type: list[str], list[str]
        condition = self.whole.conditions.get(block.start)
        after = last.pc + last.size_bytes
        if condition is not None:
            if last.name == "EXIT":
                yes = "ended"
            elif _jumps(last):
                yes = self._jump(last.pc, last.target, extra)
            else:
                yes = self._new_label()
            if not condition.lanes:
                lines.append(
                    f"  br i1 {condition.text}, label %{yes}, label %{_label(after, True)}"
                )
            else:
                bits = build.packed(condition).text
                self._part_whole(block, bits, yes, wanted, lines)
            if last.name == "EXIT" or _jumps(last):
                return extra
            lines.append(f"{yes}:")
        if last.name == "BPT":
            lines.append("  br label %exhausted")
        elif last.name == "EXIT":
            lines.append("  ret i32 0")
        elif last.name == "BAR":
            lines += self._move(wanted, "%", STATE)
            self._arrive(self.whole, block.start, "-1", lines)
            lines.append(f"  ret i32 {1 + 2 * self.barriers.index(block.start)}")
        elif by_register(last):
            self._jump_whole(block, wanted, lines, extra)
        else:
            lines.append(f"  br label %{self._jump(last.pc, block.successors[0], extra)}")
        return extra

    def _part_whole(
        self, block: Block[Instruction], bits: str, yes: str, wanted: set[int], lines: list[str]
    ) -> None:
        """Goes to `yes` with all lanes, or on with all, or leaves both to the split copy."""
        last = block.instructions[-1]
        after = last.pc + last.size_bytes
        some, part = self._new_label(), self._new_label()
        self._branch(f"icmp eq i32 {bits}, 0", _label(after, True), some, lines)
        lines.append(f"{some}:")
        self._branch(f"icmp eq i32 {bits}, -1", yes, part, lines)
        lines += [f"{part}:", *self._move(wanted, "%", STATE)]
        left = self._fresh()
        lines.append(f"  {left} = xor i32 {bits}, -1")
        if last.name == "EXIT":
            self._put(ALIVE, left, lines)
            self._put(EXEC, left, lines)
            lines.append(f"  br label %{self._go(after)}")
            return
        self._put(ALIVE, "-1", lines)
        self._add("waiting", self.places[last.target if _jumps(last) else last.pc], bits, lines)
        self._add("waiting", self.places[after], left, lines)
        lines.append("  br label %dispatch")

    def _arrive(self, copy: _Copy, start: int, lanes: str, lines: list[str]) -> None:
        """Tells the runner what these lanes wait for, and how they vote."""
        if start not in copy.meetings:
            return
        meeting, ballot = copy.meetings[start]
        votes = self._fresh()
        lines.append(f"  {votes} = and i32 {ballot.text}, {lanes}")
        for place, bits in ((layout.STATE_VOTES, votes), (layout.STATE_VOTERS, lanes)):
            at, old, count, new = (self._fresh() for _ in range(4))
            lines += [f"  {at} = getelementptr i8, ptr %state, i64 {place}",
                      f"  {old} = load i32, ptr {at}",
                      f"  {count} = call i32 @llvm.ctpop.i32(i32 {bits})",
                      f"  {new} = add i32 {old}, {count}", f"  store i32 {new}, ptr {at}"]
        at = self._fresh()
        lines += [f"  {at} = getelementptr i8, ptr %state, i64 {layout.STATE_MEETING}",
                  f"  store i32 {meeting.text}, ptr {at}"]

    @staticmethod
    def _ways(block: Block[Instruction]) -> dict[int, int]:
        """Where a jump by a register may lead, by the register's value."""
        last = block.instructions[-1]
        return {(pc - last.target) & 0xFFFFFFFF: pc for pc in block.successors}

    def _jump_whole(
        self, block: Block[Instruction], wanted: set[int], lines: list[str], extra: list[str]
    ) -> None:
        build, last = self.whole.blocks[block.start], block.instructions[-1]
        value, ways = self.whole.values[block.start], self._ways(block)
        first = build.value(f"extractelement {value.llvm} {value.text}, i32 0", "u32", False)
        apart = build.packed(value.differs(build.splat(first))).text
        same, part = self._new_label(), self._new_label()
        self._branch(f"icmp eq i32 {apart}, 0", same, part, lines)
        cases = " ".join(
            f"i32 {distance}, label %{self._jump(last.pc, pc, extra)}"
            for distance, pc in ways.items()
        )
        lines += [f"{same}:", f"  switch i32 {first.text}, label %exhausted [ {cases} ]",
                  f"{part}:", *self._move(wanted, "%", STATE)]
        self._put(ALIVE, "-1", lines)
        for distance, pc in ways.items():
            there = build.packed(value.equals(distance)).text
            self._add("waiting", self.places[pc], there, lines)
        lines.append("  br label %dispatch")

    def _wanted(self, block: Block[Instruction]) -> set[int]:
        return set().union(*(self.live[s] for s in block.successors))

    def _store(self, build: Translator, wanted: set[int]) -> None:
        build.store(
            {r - VECTOR_BASE for r in wanted if r >= VECTOR_BASE},
            {r for r in wanted if r < VECTOR_BASE},
        )

    # ---- the split copy ----
    def _finish_split(self, block: Block[Instruction]) -> None:
        """The end of a block where only the lanes of EXEC are."""
        build, last = self.split.blocks[block.start], block.instructions[-1]
        condition = self.split.conditions.get(block.start)
        bits = ""
        exec = build.scalar(EXEC).text
        if condition is not None:
            lanes = condition if condition.lanes else build.splat(condition)
            bits = (build.packed(lanes) & build.scalar(EXEC)).text
        self._store(build, self._wanted(block) | self._barrier_registers(build))
        lines = build.lines
        name = last.name
        if name == "EXIT":
            self._exit_split(block, bits or exec, exec, lines)
            return
        if bits:
            yes = self._go(last.target) if _jumps(last) else self._new_label()
            self._part_split(last, bits, exec, yes, lines)
            if _jumps(last):
                return
            lines.append(f"{yes}:")
        if name == "BPT":
            lines.append("  br label %exhausted")
        elif by_register(last):
            self._jump_split(block, lines)
        elif name == "BAR":
            number = self.barriers.index(block.start)
            self._arrive(self.split, block.start, exec, lines)
            self._add("stopped", number, exec, lines)
            lines.append(f"  br label %stop{number}")
        elif name in ("BSYNC", "WARPSYNC"):
            site = self.sites.index(block.start)
            if name == "WARPSYNC":
                self._set("members", site, self.split.values[block.start].text, lines)
            self._add("arrived", site, exec, lines)
            lines.append(f"  br label %meet{site}")
        else:
            lines.append(f"  br label %{self._go(block.successors[0])}")

    def _part_split(
        self, last: Instruction, bits: str, exec: str, yes: str, lines: list[str]
    ) -> None:
        """Goes to `yes` with all lanes that are here, or on with all, or parts them."""
        after, target = last.pc + last.size_bytes, last.target if _jumps(last) else last.pc
        left, inverse = self._fresh(), self._fresh()
        lines += [f"  {inverse} = xor i32 {bits}, -1",
                  f"  {left} = and i32 {exec}, {inverse}"]
        some, part = self._new_label(), self._new_label()
        self._branch(f"icmp eq i32 {bits}, 0", self._go(after), some, lines)
        lines.append(f"{some}:")
        self._branch(f"icmp eq i32 {left}, 0", yes, part, lines)
        lines.append(f"{part}:")
        self._add("waiting", self.places[target], bits, lines)
        self._add("waiting", self.places[after], left, lines)
        lines.append("  br label %dispatch")

    def _barrier_registers(self, build: Translator) -> set[int]:
        """Those that the block has written: lanes elsewhere may wait by them."""
        return {r for r in build.written_scalars if BARRIER <= r < BARRIER + 16}

    def _exit_split(
        self, block: Block[Instruction], bits: str, exec: str, lines: list[str]
    ) -> None:
        alive, inverse, left = self._state(ALIVE, lines), self._fresh(), self._fresh()
        lines += [f"  {inverse} = xor i32 {bits}, -1", f"  {left} = and i32 {alive}, {inverse}"]
        self._put(ALIVE, left, lines)
        some = self._new_label()
        self._branch(f"icmp eq i32 {left}, 0", "ended", some, lines)
        lines.append(f"{some}:")
        if not block.successors:
            lines.append("  br label %dispatch")
            return
        here = self._fresh()
        lines.append(f"  {here} = and i32 {exec}, {inverse}")
        self._put(EXEC, here, lines)
        self._branch(f"icmp eq i32 {here}, 0", "dispatch", self._go(block.successors[0]), lines)

    def _jump_split(self, block: Block[Instruction], lines: list[str]) -> None:
        build, value = self.split.blocks[block.start], self.split.values[block.start]
        for distance, pc in self._ways(block).items():
            there = build.packed(value.equals(distance)) & build.scalar(EXEC)
            self._add("waiting", self.places[pc], there.text, lines)
        lines.append("  br label %dispatch")

    def _meetings(self) -> list[str]:
        """Where lanes wait for each other: once all have come, they go on together."""
        lines: list[str] = []
        for site, start in enumerate(self.sites):
            block = self.program.blocks[start]
            lines.append(f"meet{site}:")
            arrived = self._get("arrived", site, lines)
            missing, on = self._missing(site, arrived, lines), self._new_label()
            self._branch(f"icmp eq i32 {missing}, 0", on, "dispatch", lines)
            lines.append(f"{on}:")
            self._set("arrived", site, "0", lines)
            self._put(EXEC, arrived, lines)
            lines.append(f"  br label %{self._go(block.successors[0])}")
        for number in range(len(self.barriers)):
            lines.append(f"stop{number}:")
            alive, arrived = self._state(ALIVE, lines), self._get("stopped", number, lines)
            on = self._new_label()
            self._branch(f"icmp eq i32 {arrived}, {alive}", on, "dispatch", lines)
            lines.append(f"{on}:")
            self._set("stopped", number, "0", lines)
            self._put(EXEC, arrived, lines)
            lines.append(f"  ret i32 {2 + 2 * number}")
        return lines

    def _missing(self, site: int, arrived: str, lines: list[str]) -> str:
        """The lanes that are alive and have not come to a meeting to which they belong."""
        last = self.program.blocks[self.sites[site]].instructions[-1]
        if last.name == "BSYNC":
            register = BARRIER + last.operand("B16").number
            self.scalars.add(register)
            members = self._state(register, lines)
        else:
            members = self._get("members", site, lines)
        alive = self._state(ALIVE, lines)
        wanted, inverse, missing = self._fresh(), self._fresh(), self._fresh()
        lines += [f"  {wanted} = and i32 {members}, {alive}",
                  f"  {inverse} = xor i32 {arrived}, -1",
                  f"  {missing} = and i32 {wanted}, {inverse}"]
        return missing

    def _dispatcher(self) -> list[str]:
        """Takes the first place where lanes are to go on."""
        lines = ["dispatch:", *self._budget(0, "look"), "look:"]
        for start in sorted(self.program.blocks):
            lanes = self._get("waiting", self.places[start], lines)
            found, on = self._new_label(), self._new_label()
            self._branch(f"icmp ne i32 {lanes}, 0", found, on, lines)
            lines.append(f"{found}:")
            self._set("waiting", self.places[start], "0", lines)
            self._put(EXEC, lanes, lines)
            lines += [f"  br label %{self._enter(start)}", f"{on}:"]
        for site in range(len(self.sites)):
            arrived = self._get("arrived", site, lines)
            missing, on = self._missing(site, arrived, lines), self._new_label()
            some, complete, ready = self._fresh(), self._fresh(), self._fresh()
            lines += [f"  {some} = icmp ne i32 {arrived}, 0",
                      f"  {complete} = icmp eq i32 {missing}, 0",
                      f"  {ready} = and i1 {some}, {complete}",
                      f"  br i1 {ready}, label %meet{site}, label %{on}", f"{on}:"]
        for number in range(len(self.barriers)):
            stopped, alive = self._get("stopped", number, lines), self._state(ALIVE, lines)
            on = self._new_label()
            self._branch(f"icmp eq i32 {stopped}, {alive}", f"stop{number}", on, lines)
            lines.append(f"{on}:")
        return [*lines, "  br label %exhausted"]

    def _enter(self, target: int) -> str:
        """Where the lanes of EXEC begin a block, in whichever copy is right for them."""
        return f"in{target:x}" if self.all_lanes else _label(target, False)

    def _stubs(self) -> list[str]:
        """The ways into blocks for lanes of the split copy."""
        lines: list[str] = []
        for target in sorted(self.stubs):
            lines.append(f"go{target:x}:")
            exec, alive = self._state(EXEC, lines), self._state(ALIVE, lines)
            wait, on = self._new_label(), self._new_label()
            self._branch(f"icmp eq i32 {exec}, {alive}", on, wait, lines)
            lines.append(f"{wait}:")
            self._add("waiting", self.places[target], exec, lines)
            lines += ["  br label %dispatch", f"{on}:", *self._budget(target, self._enter(target))]
        if not self.all_lanes:
            return lines
        for target in sorted(self.program.blocks):
            lines.append(f"in{target:x}:")
            exec, back = self._state(EXEC, lines), self._new_label()
            self._branch(f"icmp eq i32 {exec}, -1", back, _label(target, False), lines)
            lines += [f"{back}:", *self._move(self.live[target], STATE, "%"),
                      f"  br label %{_label(target, True)}"]
        return lines

    # ---- all of it ----
    def text(self) -> str:
        """The module."""
        body: list[str] = []
        builds = [*self.split.blocks.values()]
        if self.all_lanes:
            for start, block in self.program.blocks.items():
                extra = self._finish_whole(block)
                body += [f"{_label(start, True)}:", *self.whole.blocks[start].lines, *extra]
            builds += self.whole.blocks.values()
        for start, block in self.program.blocks.items():
            self._finish_split(block)
            body += [f"{_label(start, False)}:", *self.split.blocks[start].lines]
        body += self._meetings()
        resumes = self._resumes()
        body += resumes
        body += self._dispatcher()
        body += self._stubs()
        declarations = {"declare i32 @llvm.ctpop.i32(i32)"} if self.numbered else set()
        local: set[str] = set()
        functions: dict[str, str] = {}
        for build in builds:
            declarations |= build.declarations
            local |= build.locals
            functions |= build.functions
            self.scalars |= build.scalar_uses | build.written_scalars
            self.vectors |= build.vector_uses | build.vectors.keys()
        cases = "".join(
            f" i32 {n}, label %resume{n}"
            for n in range(1, 2 * len(self.barriers) + 1) if n % 2 == 0 or self.all_lanes
        )
        return "\n".join([
            *sorted(declarations), *functions.values(),
            "define i32 @wave(ptr %state, ptr %context, i32 %resume) "
            '"prefer-vector-width"="512" {', "entry:", *self._entry(sorted(local)),
            f"  switch i32 %resume, label %begin [{cases} ]", *body,
            "ended:", "  ret i32 0", "exhausted:", "  ret i32 -1", "}",
        ]) + "\n"

    def _entry(self, local: list[str]) -> list[str]:
        lines = [f"  %lanes = alloca {llvm_type('u32', LANES)}, align 128"]
        lines += [f"  {line}" for line in local]
        arrays = {"waiting": len(self.places), "arrived": len(self.sites),
                  "members": len(self.sites), "stopped": len(self.barriers)}
        for name, count in arrays.items():
            lines.append(f"  %{name} = alloca [{max(1, count)} x i32], align 64")
            lines.append(f"  store [{max(1, count)} x i32] zeroinitializer, ptr %{name}")
        for index in sorted(self.scalars):
            lines.append(f"  {STATE}s{index} = getelementptr i8, ptr %state, "
                         f"i64 {layout.STATE_SCALARS + 4 * index}")
            if self.all_lanes:
                lines.append(f"  %s{index} = alloca i32")
        for index in sorted(self.vectors):
            lines.append(f"  {STATE}v{index} = getelementptr i8, ptr %state, "
                         f"i64 {layout.STATE_VECTORS + 4 * LANES * index}")
            if self.all_lanes:
                lines.append(f"  %v{index} = alloca {llvm_type('u32', LANES)}, align 128")
        return lines

    def _resumes(self) -> list[str]:
        """How a wave begins, and how it goes on behind each barrier."""
        lines = ["begin:"]
        if self.all_lanes:
            lines += [*self._move(self.live[0], STATE, "%"), f"  br label %{_label(0, True)}"]
        else:
            exec = self._state(EXEC, lines)
            self._put(ALIVE, exec, lines)
            lines.append(f"  br label %{self._go(0)}")
        for number, start in enumerate(self.barriers):
            target = self.program.blocks[start].successors[0]
            if self.all_lanes:
                lines += [f"resume{1 + 2 * number}:", *self._move(self.live[target], STATE, "%"),
                          f"  br label %{_label(target, True)}"]
            lines += [f"resume{2 + 2 * number}:", f"  br label %{self._go(target)}"]
        return lines


def _condition(build: Translator, i: Instruction) -> Value:
    """In which lanes (or, a scalar, whether) the end of a block has its effect."""
    if "diverge" in i.row.words:  # whether lanes are missing of those that a register lists
        wanted = build.uniform(i.operand("U24").number) & build.scalar(ALIVE)
        missing = (wanted & ~build.scalar(EXEC)).differs(0)
        found = missing if i.fields["diverge"] == 2 else ~missing
    elif "p87" in i.row.positions and (i.operand("p87").number != PT or i.operand("p87").negate):
        found = build.predicate(i.operand("p87"))
    else:
        return build.predicate(i.guard)
    if i.guard.number == PT and not i.guard.negate:
        return found
    guard = build.predicate(i.guard)
    if guard.lanes and not found.lanes:
        found = build.splat(found)
    elif found.lanes and not guard.lanes:
        guard = build.splat(guard)
    return found & guard


def _members(build: Translator, i: Instruction) -> Value:
    """The lanes for which a WARPSYNC waits, as a mask."""
    if not i.operands:
        return build.constant("u32", 0xFFFFFFFF, False)
    operand = i.operands[0]
    if operand.kind == "I":
        return build.constant("u32", operand.number, False)
    if operand.kind != "R":
        return build.raw(operand)
    value = build.register(operand.number)
    bits = build.scalar(EXEC)
    place = bits.equals(0).select(0, bits.intrinsic("cttz", "i1 false"))
    return build.value(
        f"extractelement {value.llvm} {value.text}, i32 {place.text}", "u32", False
    )


def translate(
    program: Program[Instruction], wave_size: int, slots: dict[int, int], all_lanes: bool
) -> str:
    """The LLVM IR of a kernel; `slots` numbers its memory instructions by their pc.

    `all_lanes` makes the version for warps that start with all 32 lanes.
    """
    return _Function(program, slots, all_lanes).text()
