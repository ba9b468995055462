"""What a renderer gets: a kernel as a list of instructions."""

from __future__ import annotations

from dataclasses import dataclass

from compiler.ir import Node


@dataclass(frozen=True)
class LinearKernel:
    """Instructions in program order (`docs/ir.md`, linear level).

    `params` are PARAM and VARIABLE nodes, one 8-byte argument slot each; `written` are the
    positions in `params` that the kernel stores to. `grid` is how many blocks to launch, `block`
    how many threads each of them has.
    """

    name: str
    params: tuple[Node, ...]
    body: tuple[Node, ...]
    grid: tuple[int, int, int] = (1, 1, 1)
    block: tuple[int, int, int] = (1, 1, 1)
    written: frozenset[int] = frozenset()
    operations: int = 0
    bytes_moved: int = 0
