"""From a fused tensor expression to a kernel: an index per output axis is carried to the loads.

`lower` turns ASSIGN(target, value) into a scalar STORE over RANGE indices. A movement op maps an
output index to an input index and, for PAD, a condition under which the input exists; no stride
is ever stored. REDUCE becomes REDUCE(value, *ranges) over indices of its own.
"""

from __future__ import annotations

from collections.abc import Generator, Iterator
from dataclasses import dataclass
from typing import TypeAlias

from compiler.dtype import DType, dtypes
from compiler.folding import FOLDING
from compiler.ir import ALU, Extent, Node, Op, Shape, index, toposort
from compiler.symbolic import (
    FALSE,
    TRUE,
    add,
    bounds,
    conjunction,
    idiv,
    less,
    linear,
    mod,
    mul,
    product,
    rebuild,
)

Indices: TypeAlias = "tuple[Node, ...]"
# What must be known to write one element: node, its indices, and where they are valid.
Place: TypeAlias = "tuple[Node, Indices, Node]"


@dataclass(frozen=True)
class ScalarKernel:
    """One STORE of one element, over `ranges`, the output's axes from slowest to fastest."""

    store: Node
    ranges: tuple[Node, ...]


def lower(ast: Node) -> ScalarKernel:
    """The kernel of ASSIGN(view of PARAM, value)."""
    target, value = ast.src
    lowering = _Lowering()
    ranges = tuple(lowering.new_range(extent, False) for extent in value.shape)
    address = lowering.run((target, ranges, TRUE))
    scalar = lowering.run((value, ranges, TRUE))
    store = Node(Op.STORE, dtypes.void, (address.src[0], address.src[1], scalar))
    store = FOLDING.rewrite(store)
    kept = tuple(r for r in ranges if r.op is Op.RANGE)
    return merge_ranges(ScalarKernel(store, kept))


def shows_padding(view: Node) -> bool:
    """Whether some element of a view of a PARAM is none of the PARAM's, but a zero beside them."""
    lowering = _Lowering()
    load = lowering.run((view, tuple(lowering.new_range(n, False) for n in view.shape), TRUE))
    return load.op is not Op.LOAD or len(load.src) > 2


def strides_of(view: Node) -> tuple[int, tuple[int, ...]] | None:
    """Where the elements of a view of a PARAM lie: at the offset + the sum of index * stride.

    In elements. None where it is no such sum, or some elements are a pad's. An axis of
    extent 1 has the stride 0.
    """
    lowering = _Lowering()
    ranges = tuple(lowering.new_range(n, False) for n in view.shape)
    load = lowering.run((view, ranges, TRUE))
    if load.op is not Op.LOAD or len(load.src) > 2:
        return None
    terms, offset = linear(load.src[1])
    if any(term not in ranges for term in terms):
        return None
    return offset, tuple(terms.get(axis, 0) for axis in ranges)


class _Lowering:
    """One kernel's walk: every (node, indices, condition) is lowered once."""

    def __init__(self) -> None:
        self.ranges = 0
        self.done: dict[Place, Node] = {}

    def new_range(self, extent: Extent, reduces: bool) -> Node:
        if extent == 1:
            return index(0)
        self.ranges += 1
        return Node(Op.RANGE, dtypes.index, (index(extent),), (self.ranges - 1, reduces))

    def run(self, place: Place) -> Node:
        """The scalar at `place`; the walk keeps its own stack, so graphs may be deep."""
        stack = [(place, self.visit(*place))]
        answer: Node | None = None
        while stack:
            current, steps = stack[-1]
            try:
                wanted = steps.send(answer) if answer is not None else next(steps)
            except StopIteration as finished:
                stack.pop()
                answer = self.done[current] = finished.value
                continue
            answer = self.done.get(wanted)
            if answer is None:
                stack.append((wanted, self.visit(*wanted)))
        assert answer is not None
        return answer

    def visit(self, node: Node, at: Indices, valid: Node) -> Generator[Place, Node, Node]:
        """Yields the places it needs and returns the scalar node."""
        if node.op in _MOVES:
            while node.op in _MOVES:
                at = _MOVES[node.op](node, at)
                node = node.src[0]
            return (yield (node, at, valid))
        if node.op is Op.PAD:
            exists, at = _unpad(node, at)
            inner = yield (node.src[0], at, conjunction(valid, exists))
            if exists is TRUE or inner.op is Op.LOAD:
                return inner
            return Node(Op.WHERE, node.dtype, (exists, inner, Node.const(0, node.dtype)))
        if node.op is Op.PARAM:
            gate = () if valid is TRUE else (valid,)
            return Node(Op.LOAD, node.dtype, (node, at[0], *gate))
        if node.op is Op.IOTA:
            return at[0]
        if node.op is Op.REDUCE:
            return (yield from self._reduce(node, at, valid))
        if node.op is Op.GATHER:
            return (yield from self._gather(node, at, valid))
        if node.op in (Op.CONST, Op.VARIABLE):
            return node
        if node.op not in ALU:
            raise AssertionError(f"{node.op.name} must not reach lowering; the scheduler takes it")
        src = []
        for s in node.src:
            src.append((yield (s, at if s.shape else (), valid)))
        return _scalar(node, tuple(src))

    def _reduce(self, node: Node, at: Indices, valid: Node) -> Generator[Place, Node, Node]:
        op, axes = node.arg
        source = node.src[0]
        if any(source.shape[axis] == 0 for axis in axes):
            return identity(op, node.dtype)
        inner = list(at)
        for axis in axes:
            inner[axis] = self.new_range(source.shape[axis], True)
        value = yield (source, tuple(inner), valid)
        ranges = tuple(inner[axis] for axis in axes if inner[axis].op is Op.RANGE)
        return _reduced(op, value, ranges)

    def _gather(self, node: Node, at: Indices, valid: Node) -> Generator[Place, Node, Node]:
        source, positions = node.src
        rank = len(positions.shape)
        where = _as_index((yield (positions, at[:rank], valid)))
        exists = conjunction(less(index(-1), where), less(where, index(source.shape[0])))
        inner = yield (source, (where, *at[rank:]), conjunction(valid, exists))
        if exists is TRUE or inner.op is Op.LOAD:
            return inner
        return Node(Op.WHERE, node.dtype, (exists, inner, Node.const(0, node.dtype)))


def identity(op: Op, dtype: DType) -> Node:
    """What a reduction starts from, and what it gives for no elements."""
    if op is Op.ADD:
        return Node.const(0, dtype)
    return Node.const(1 if op is Op.MUL else dtype.min, dtype)


def _reduced(op: Op, value: Node, ranges: Indices) -> Node:
    """REDUCE(value, *ranges); a reduce of the same kind inside it becomes part of it."""
    if not ranges:
        return value
    if value.op is Op.REDUCE and value.arg is op:
        return Node(Op.REDUCE, value.dtype, (value.src[0], *ranges, *value.src[1:]), op)
    if op is Op.ADD and value.op is Op.WHERE and value.src[1].op is Op.REDUCE:
        condition, inner, zero = value.src
        if inner.arg is op and zero.op is Op.CONST and zero.arg == 0:
            masked = Node(Op.WHERE, value.dtype, (condition, inner.src[0], zero))
            return Node(Op.REDUCE, value.dtype, (masked, *ranges, *inner.src[1:]), op)
    return Node(Op.REDUCE, value.dtype, (value, *ranges), op)


def _scalar(node: Node, src: Indices) -> Node:
    """The elementwise op of `node` on scalars; integers that are indices stay indices."""
    if node.op is Op.CAST and node.dtype is dtypes.index:
        return _as_index(src[0])
    if node.op is Op.CMPLT and dtypes.is_int(src[0].dtype):
        a, b = _try_index(src[0]), _try_index(src[1])
        if a is not None and b is not None:
            return less(a, b)
    if node.dtype is dtypes.index and node.op in (Op.ADD, Op.MUL):
        return (add if node.op is Op.ADD else mul)(*src)
    return Node(node.op, node.dtype, src, node.arg)


def _as_index(value: Node) -> Node:
    found = _try_index(value)
    return Node(Op.CAST, dtypes.index, (value,)) if found is None else found


def _try_index(value: Node) -> Node | None:
    """An integer value as index arithmetic, if it is that and cannot have wrapped."""
    if value.dtype is dtypes.index:
        return value
    match value:
        case Node(op=Op.CONST):
            return index(int(value.arg))
        case Node(op=Op.CAST, src=(inner,)) if inner.dtype is dtypes.index:
            found = inner
        case Node(op=Op.ADD | Op.MUL, src=(a, b)):
            x, y = _try_index(a), _try_index(b)
            if x is None or y is None:
                return None
            found = add(x, y) if value.op is Op.ADD else mul(x, y)
        case _:
            return None
    low, high = bounds(found)
    return found if value.dtype.min <= low and high <= value.dtype.max else None


# ---- movement ----


def _unpad(node: Node, at: Indices) -> tuple[Node, Indices]:
    exists, inner = TRUE, []
    for i, (before, after), extent in zip(at, node.arg, node.src[0].shape, strict=True):
        position = i - before
        if before != 0:
            exists = conjunction(exists, less(index(-1), position))
        if after != 0:
            exists = conjunction(exists, less(position, index(extent)))
        inner.append(position)
    return exists, tuple(inner)


def _permute(node: Node, at: Indices) -> Indices:
    inner = [at[0]] * len(at)
    for i, axis in zip(at, node.arg, strict=True):
        inner[axis] = i
    return tuple(inner)


def _expand(node: Node, at: Indices) -> Indices:
    return tuple(
        index(0) if extent == 1 else i for i, extent in zip(at, node.src[0].shape, strict=True)
    )


def _shrink(node: Node, at: Indices) -> Indices:
    return tuple(i + start for i, (start, _) in zip(at, node.arg, strict=True))


def _flip(node: Node, at: Indices) -> Indices:
    return tuple(
        index(extent) - 1 - i if axis in node.arg else i
        for axis, (i, extent) in enumerate(zip(at, node.shape, strict=True))
    )


def _skew(node: Node, at: Indices) -> Indices:
    axis, by, step, offset, _ = node.arg
    return (*at[:axis], at[axis] + at[by] * step + offset, *at[axis + 1 :])


def _reshape(node: Node, at: Indices) -> Indices:
    if 0 in node.shape:  # there is no element, and padding hides what is read
        return (index(0),) * len(node.src[0].shape)
    inner: list[Node] = []
    for new, new_at, old in _reshape_groups(node.shape, at, node.src[0].shape):
        flat = index(0)
        for extent, i in zip(new, new_at, strict=True):
            flat = flat * extent + i
        inner.extend(_unflatten(flat, old))
    return tuple(inner)


def _unflatten(flat: Node, shape: Shape) -> Iterator[Node]:
    for axis, extent in enumerate(shape):
        if extent == 1:
            yield index(0)
            continue
        quotient = idiv(flat, product(shape[axis + 1 :]))
        leading = all(outer == 1 for outer in shape[:axis])
        yield quotient if leading else mod(quotient, index(extent))


def _reshape_groups(new: Shape, at: Indices, old: Shape) -> Iterator[tuple[Shape, Indices, Shape]]:
    """Runs of new and old axes that hold the same elements; most are a single axis each."""
    i = j = 0
    while i < len(new) or j < len(old):
        first_new, first_old = i, j
        left, right = index(1), index(1)
        if i < len(new):
            left, i = index(new[i]), i + 1
        if j < len(old):
            right, j = index(old[j]), j + 1
        while left is not right:
            behind = bounds(left)[1] < bounds(right)[1]
            if (behind or j >= len(old)) and i < len(new):
                left, i = mul(left, index(new[i])), i + 1
            elif j < len(old):
                right, j = mul(right, index(old[j])), j + 1
            else:
                raise AssertionError(f"RESHAPE between {old} and {new}")
        yield new[first_new:i], at[first_new:i], old[first_old:j]


_MOVES = {
    Op.RESHAPE: _reshape,
    Op.PERMUTE: _permute,
    Op.EXPAND: _expand,
    Op.SHRINK: _shrink,
    Op.FLIP: _flip,
    Op.SKEW: _skew,
}


# ---- fewer axes ----


def index_roots(root: Node) -> list[Node]:
    """Every place where index arithmetic is used: addresses, gates, conditions and casts."""
    found: dict[Node, None] = {}
    for node in toposort(root):
        if node.dtype is not dtypes.index:
            for s in node.src:
                if s.dtype is dtypes.index and s.op is not Op.CONST and node.op is not Op.REDUCE:
                    found[s] = None
        elif node.op is Op.CAST:
            found[node] = None
    return list(found)


def merge_ranges(kernel: ScalarKernel) -> ScalarKernel:
    """Neighbouring axes that every address walks as one become one."""
    store, outputs = kernel.store, list(kernel.ranges)
    store = _merge_among(store, outputs)
    for reduce in [n for n in toposort(store) if n.op is Op.REDUCE]:
        ranges = list(reduce.src[1:])
        store = _merge_among(store, ranges)
    return ScalarKernel(store, tuple(outputs))


def _merge_among(store: Node, ranges: list[Node]) -> Node:
    """Merges pairs within `ranges` (changed in place) wherever that is possible."""
    position = 0
    while position + 1 < len(ranges):
        outer, inner = ranges[position], ranges[position + 1]
        if not _walk_as_one(store, outer, inner):
            position += 1
            continue
        extent = mul(outer.src[0], inner.src[0])
        merged = Node(Op.RANGE, dtypes.index, (extent,), outer.arg)
        store = _replace_pair(store, outer, inner, merged)
        ranges[position : position + 2] = [merged]
    return store


def _walk_as_one(store: Node, outer: Node, inner: Node) -> bool:
    extent = inner.src[0]
    if extent.op is not Op.CONST or outer.src[0].op is not Op.CONST:
        return False
    for root in index_roots(store):
        terms, _ = linear(root)
        for term in terms:
            if term is outer or term is inner:
                continue
            below = set(toposort(term))
            if outer in below or inner in below:
                return False
        if terms.get(outer, 0) != terms.get(inner, 0) * int(extent.arg):
            return False
    return _reduced_together(store, outer, inner)


def _reduced_together(store: Node, outer: Node, inner: Node) -> bool:
    return all(
        (outer in node.src[1:]) == (inner in node.src[1:])
        for node in toposort(store)
        if node.op is Op.REDUCE
    )


def _replace_pair(store: Node, outer: Node, inner: Node, merged: Node) -> Node:
    """Puts `merged` in place of outer*extent + inner, where only that combination occurs."""
    extent = inner.src[0]
    combined = {outer: idiv(merged, extent), inner: mod(merged, extent)}
    reduces = {
        node: node for node in toposort(store) if node.op is Op.REDUCE and outer in node.src[1:]
    }
    if not reduces:
        return rebuild(store, combined)
    replaced: dict[Node, Node] = {}
    for node in reduces:
        value = rebuild(node.src[0], combined)
        ranges = [merged if r is outer else r for r in node.src[1:] if r is not inner]
        replaced[node] = Node(Op.REDUCE, node.dtype, (value, *ranges), node.arg)
    return rebuild(store, replaced)


__all__ = [
    "FALSE", "ScalarKernel", "index_roots", "lower", "merge_ranges", "shows_padding", "strides_of",
]
