"""Control flow of one kernel: which code is reached, its blocks, and what they must hand over."""

from __future__ import annotations

from collections.abc import Callable, Collection
from dataclasses import dataclass, field
from typing import Any, Generic, Protocol, TypeVar

from drivers.emulated.simt.instruction import UnknownInstruction

INSTRUCTION_LIMIT = 1 << 16


class Placed(Protocol):
    """An instruction of any instruction set."""

    pc: int
    size_bytes: int


Code = TypeVar("Code", bound=Placed)


@dataclass
class Block(Generic[Code]):
    """Instructions that run one after another; `successors` are the starts of blocks."""

    start: int
    instructions: list[Code] = field(default_factory=list)
    successors: tuple[int, ...] = ()


@dataclass
class Program(Generic[Code]):
    """A kernel's reached code; every pc is an offset from its entry."""

    blocks: dict[int, Block[Code]]
    instructions: list[Code]
    extents: list[tuple[int, int]]
    """Which bytes are code, as (first, end) offsets from the entry, ascending."""


def read_program(
    decode: Callable[[int], Code],
    flow: Callable[[Code], tuple[tuple[int, ...], bool]],
) -> Program[Code]:
    """Follows the code from offset 0. `flow` gives (targets, whether the block ends there)."""
    known: dict[int, Code] = {}
    starts, ends = {0}, {}
    todo = [0]
    while todo:
        pc = todo.pop()
        while pc not in known:
            instruction = known[pc] = decode(pc)
            if len(known) > INSTRUCTION_LIMIT:
                raise UnknownInstruction(
                    f"The kernel has more than {INSTRUCTION_LIMIT} instructions.",
                    operation="decode",
                )
            targets, last = flow(instruction)
            if last:
                ends[pc] = targets
                new = [t for t in targets if t not in starts]
                starts.update(targets)
                todo.extend(new)
                break
            pc += instruction.size_bytes
    return Program(_blocks(known, starts, ends), [known[pc] for pc in sorted(known)],
                   _extents(known))


def _blocks(
    known: dict[int, Code], starts: set[int], ends: dict[int, tuple[int, ...]]
) -> dict[int, Block[Code]]:
    blocks: dict[int, Block[Code]] = {}
    for start in sorted(starts):
        block = blocks[start] = Block(start)
        pc = start
        while True:
            instruction = known[pc]
            block.instructions.append(instruction)
            if pc in ends:
                block.successors = ends[pc]
                break
            pc += instruction.size_bytes
            if pc in starts:
                block.successors = (pc,)
                break
    return blocks


def _extents(known: dict[int, Code]) -> list[tuple[int, int]]:
    extents: list[tuple[int, int]] = []
    for pc in sorted(known):
        end = pc + known[pc].size_bytes
        if extents and extents[-1][1] >= pc:
            extents[-1] = (extents[-1][0], max(end, extents[-1][1]))
        else:
            extents.append((pc, end))
    return extents


def known_full(
    program: Program[Code], entry: frozenset[int], after: Callable[[Code, set[int]], None]
) -> dict[int, frozenset[int]]:
    """For each block the mask registers that hold all ones whenever it starts.

    `after` changes the set as an instruction does. A forward analysis; a register counts only
    if it is full on every way into the block.
    """
    full: dict[int, frozenset[int]] = {0: entry}
    todo = [0]
    while todo:
        start = todo.pop()
        now = set(full[start])
        for instruction in program.blocks[start].instructions:
            after(instruction, now)
        for successor in program.blocks[start].successors:
            before = full.get(successor)
            joined = frozenset(now) if before is None else before & now
            if joined != before:
                full[successor] = joined
                todo.append(successor)
    return full


def live_at_start(
    program: Program[Any], uses: dict[int, set[int]], definitions: dict[int, set[int]]
) -> dict[int, set[int]]:
    """For each block the registers whose value is still wanted when it starts."""
    live = {start: set(uses[start]) for start in program.blocks}
    sources: dict[int, list[int]] = {start: [] for start in program.blocks}
    for start, block in program.blocks.items():
        for successor in block.successors:
            sources[successor].append(start)
    todo = list(program.blocks)
    while todo:
        start = todo.pop()
        for source in sources[start]:
            new = live[start] - definitions[source] - live[source]
            if new:
                live[source] |= new
                todo.append(source)
    return live


def unsaved_at_start(
    program: Program[Any], written: dict[int, set[int]], saving: Collection[int]
) -> dict[int, set[int]]:
    """For each block the registers that may have changed since they were last saved.

    A wave's registers are saved when it starts, and at the end of the blocks in `saving`.
    """
    unsaved: dict[int, set[int]] = {start: set() for start in program.blocks}
    todo = list(program.blocks)
    while todo:
        start = todo.pop()
        if start in saving:
            continue
        after = unsaved[start] | written[start]
        for successor in program.blocks[start].successors:
            if not after <= unsaved[successor]:
                unsaved[successor] |= after
                todo.append(successor)
    return unsaved
