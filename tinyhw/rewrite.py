"""Rewrites before cutting: reduces of reduces become one, long reduces become two.

Three shapes of graph come out of automatic differentiation and of big sums that no cutting
into kernels would make fast:

1. The gradient of a convolution by its input is a sum over windows of a padded sum over
   channels. A movement of a REDUCE is a REDUCE of that movement with the reduced axes at the
   end, so both become one contraction. (The sum of a matrix product does not: the product is
   fast because it reuses what it reads, which the sum of all its terms would not.)
2. In it the padding stands on the product. PAD(a * b) is PAD(a) * b' where b' only has to have
   the padded shape: the padding goes to the operand that is not constant along the padded axis,
   down to its storage, where it is a small copy that makes the contraction free of masks.
3. A long sum with few results leaves threads idle and streams memory many times: partial sums
   over chunks first (chunks being the slowest output axis, so that each is one block's work),
   then the sum of those. The order of additions depends on the target alone.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping

from compiler.ir import ALU, MOVEMENT, Node, Op, Shape, upper
from compiler.target import Target
from tinyhw.prepare import has_variables, rebuilt, users_of, walk

# A reduce is cut in two where it has at least this many terms for each result...
LONG_REDUCE = 1 << 14
# ... and a chunk keeps at least this many of them.
SHORTEST_CHUNK = 1 << 10
# Results one thread computes side by side: with fewer per thread, chunks fill the machine.
RESULTS_PER_THREAD = 128
# Partial results of a contraction may take this many elements.
MOST_PARTIALS = 1 << 22


def rewrite(
    roots: Iterable[Node], target_of: Callable[[Node], Target]
) -> Mapping[Node, Node]:
    """What each node below the roots becomes."""
    order = walk(roots)
    users = users_of(order)
    done: dict[Node, Node] = {}
    for node in order:
        if not node.src:
            done[node] = node
            continue
        new = rebuilt(node, tuple([done[s] for s in node.src]))
        if node.op is Op.REDUCE:
            if _reaches_reduce(node, users):
                new = _merged(new)
            new = _split(new, target_of(node))
        elif node.op is Op.ASSIGN:
            new = _assign_copy(new)
        done[node] = new
    return done


def _assign_copy(assign: Node) -> Node:
    """An ASSIGN of storage as it is to another view of itself goes through a copy."""
    target, value = assign.src
    if value is not target and value.op in (Op.BUFFER, Op.AFTER):
        return assign.with_src((target, value.contiguous()))
    return assign


# ---- a reduce of a reduce ----


def _reaches_reduce(node: Node, users: Mapping[Node, list[Node]]) -> bool:
    """Whether only movement without repetition, used by nothing else, lies before a like REDUCE."""
    op = node.arg[0]
    below = node.src[0]
    while len(users[below]) == 1:
        if below.op is Op.REDUCE:
            return below.arg[0] is op and below.dtype is node.dtype
        if below.op not in MOVEMENT or below.op is Op.EXPAND:
            return False
        if below.op is Op.PAD and op is not Op.ADD:
            return False
        below = below.src[0]
    return False


def _merged(outer: Node) -> Node:
    """One REDUCE for an outer and an inner one; `outer` itself where a cut has come between."""
    moves: list[Node] = []
    inner = outer.src[0]
    while inner.op in MOVEMENT:
        moves.append(inner)
        inner = inner.src[0]
    if inner.op is not Op.REDUCE or inner.arg[0] is not outer.arg[0]:
        return outer
    if any(has_variables(m.shape) for m in (outer, inner, inner.src[0], *moves)):
        return outer
    op, axes = inner.arg
    source = inner.src[0]
    extents = tuple(source.shape[axis] for axis in axes)
    kept = tuple(axis for axis in range(len(source.shape)) if axis not in axes)

    def separated(x: Node) -> Node:
        return x.permute(kept + tuple(axes)).reshape(inner.shape + extents)

    contracts = is_contraction(inner) and source.op is Op.MUL
    lifted = _distribute(source, separated) if contracts else separated(source)
    for move in reversed(moves):
        lifted = _apply_lifted(move, lifted, extents)
    if contracts and _repeats(lifted, outer.arg[1]):
        return outer
    rank = len(outer.shape)
    trailing = tuple(range(rank, rank + len(extents)))
    return lifted.reduce(op, outer.arg[1] + trailing).reshape(outer.shape)


def _repeats(product: Node, axes: tuple[int, ...]) -> bool:
    """Whether a factor is the same all along one of `axes`: then sum the other factor first."""
    return any(
        s.shape and s.shape[axis] != 1 and constant_along(s, axis)
        for s in product.src
        for axis in axes
    )


def _distribute(product: Node, move: Callable[[Node], Node]) -> Node:
    return product.with_src(tuple(move(s) if s.shape else s for s in product.src))


def _apply_lifted(move: Node, x: Node, extents: tuple[int, ...]) -> Node:
    """The movement op `move` on the leading axes of x, whose last ones are `extents`."""
    if x.op is Op.MUL:
        if move.op is Op.PAD:
            return _pad_product(x, move.arg + ((0, 0),) * len(extents))
        if move.op is Op.SKEW:
            return _distribute(x, lambda s: _skew_operand(move, s))
        return _distribute(x, lambda s: _apply_lifted(move, s, extents))
    rank = len(move.src[0].shape)
    match move.op:
        case Op.RESHAPE:
            return x.reshape(move.arg + extents)
        case Op.PERMUTE:
            return x.permute(move.arg + tuple(range(rank, rank + len(extents))))
        case Op.PAD:
            return x.pad(move.arg + ((0, 0),) * len(extents))
        case Op.SHRINK:
            return x.shrink(move.arg + tuple((0, extent) for extent in extents))
        case Op.FLIP:
            return x.flip(move.arg)
        case _:
            return Node(Op.SKEW, x.dtype, (x,), move.arg)


def _skew_operand(move: Node, x: Node) -> Node:
    """The SKEW of one factor: where that is constant along the axis, only the extent changes."""
    axis, *_, extent = move.arg
    if constant_along(x, axis):
        return _repeat(x, axis, extent)
    return Node(Op.SKEW, x.dtype, (x,), move.arg)


def _repeat(x: Node, axis: int, extent: int) -> Node:
    """x, which is constant along `axis`, with another extent there."""
    shape = x.shape
    first = x.shrink(tuple((0, 1 if i == axis else n) for i, n in enumerate(shape)))
    return first.expand((*shape[:axis], extent, *shape[axis + 1 :]))


def _pad_product(product: Node, amounts: tuple[tuple[int, int], ...]) -> Node:
    """PAD of a product with the zeros on one factor."""
    factors = list(product.src)
    for axis, (before, after) in enumerate(amounts):
        if (before, after) == (0, 0):
            continue
        varies = [bool(f.shape) and not constant_along(f, axis) for f in factors]
        zeroed = varies.index(True) if any(varies) else next(
            i for i, f in enumerate(factors) if f.shape
        )
        for i, factor in enumerate(factors):
            if not factor.shape:
                continue
            if i == zeroed or varies[i]:
                factors[i] = pad_down(factor, axis, before, after)
            else:
                extent = factor.shape[axis]
                assert isinstance(extent, int)
                factors[i] = _repeat(factor, axis, extent + before + after)
    return product.with_src(tuple(factors))


def source_axis(node: Node, axis: int) -> int | None:
    """The axis of a movement op's source that `axis` runs along one to one, if there is one."""
    shape, below = node.shape, node.src[0].shape
    match node.op:
        case Op.PERMUTE:
            return int(node.arg[axis])
        case Op.RESHAPE:
            return _reshaped_axis(shape, below, axis)
        case Op.EXPAND:
            return axis if below[axis] == shape[axis] else None
        case Op.PAD:
            return axis if node.arg[axis] == (0, 0) else None
        case Op.SHRINK:
            return axis if node.arg[axis] == (0, below[axis]) else None
        case Op.FLIP:
            return None if axis in node.arg else axis
        case Op.SKEW:
            return None if axis in node.arg[:2] else axis
        case _:
            return None


def _reshaped_axis(shape: Shape, below: Shape, axis: int) -> int | None:
    if has_variables(shape) or has_variables(below):
        return None
    before = math.prod(upper(n) for n in shape[:axis])
    product = 1
    for i, extent in enumerate(below):
        if product == before and extent == shape[axis]:
            return i
        product *= upper(extent)
    return None


def constant_along(node: Node, axis: int) -> bool:
    """Whether every position along `axis` surely has the same value."""
    while True:
        if not node.shape or node.shape[axis] == 1:
            return True
        if node.op in ALU:
            return all(not s.shape or constant_along(s, axis) for s in node.src)
        if node.op is Op.EXPAND and node.src[0].shape[axis] == 1:
            return True
        if node.op is Op.SHRINK:
            below: int | None = axis
        elif node.op in MOVEMENT:
            below = source_axis(node, axis)
        else:
            return False
        if below is None:
            return False
        node, axis = node.src[0], below


def pad_down(node: Node, axis: int, before: int, after: int) -> Node:
    """PAD along one axis, moved below the movement ops that leave that axis alone."""
    moves: list[tuple[Node, int]] = []
    while node.op in MOVEMENT and node.op is not Op.PAD:
        below = source_axis(node, axis)
        if below is None:
            break
        moves.append((node, axis))
        node, axis = node.src[0], below
    amounts = [(0, 0)] * len(node.shape)
    amounts[axis] = (before, after)
    if node.op is Op.PAD:
        amounts = [
            (a + c, b + d) for (a, b), (c, d) in zip(node.arg, amounts, strict=True)
        ]
        node = node.src[0]
    result = node.pad(tuple(amounts))
    for move, along in reversed(moves):
        extent = move.shape[along]
        assert isinstance(extent, int)
        result = _with_extent(move, result, along, extent + before + after)
    return result


def _with_extent(move: Node, x: Node, axis: int, extent: int) -> Node:
    """The movement op on x, which has grown along what is `axis` in the result."""
    match move.op:
        case Op.RESHAPE:
            return x.reshape((*move.arg[:axis], extent, *move.arg[axis + 1 :]))
        case Op.EXPAND:
            return x.expand((*move.arg[:axis], extent, *move.arg[axis + 1 :]))
        case Op.SHRINK:
            return x.shrink((*move.arg[:axis], (0, extent), *move.arg[axis + 1 :]))
        case _:
            return move.with_src((x,))


# ---- a long reduce ----


def _split(node: Node, target: Target) -> Node:
    """The reduce in two stages where that pays; `node` may be a RESHAPE of the REDUCE."""
    reduce = node.src[0] if node.op is Op.RESHAPE else node
    if reduce.op is not Op.REDUCE:
        return node
    source = reduce.src[0]
    if has_variables(source.shape):
        return node
    op, axes = reduce.arg
    terms = math.prod(int(source.shape[axis]) for axis in axes)
    if terms < LONG_REDUCE:
        return node
    results = max(1, source.size // terms)
    chunks = _chunk_count(reduce, terms, results, target)
    if chunks < 2:
        return node
    axis, parts = _chunk_axis(reduce, chunks)
    if parts * 4 < chunks and op is Op.ADD:  # extents without good divisors get zeros at the end
        axis = max(axes, key=lambda a: upper(source.shape[a]))
        parts = min(chunks, upper(source.shape[axis]))
        missing = -upper(source.shape[axis]) % parts
        source = source.pad(tuple((0, missing * (a == axis)) for a in range(len(source.shape))))
        reduce = source.reduce(op, axes)
    if parts < 2:
        return node
    return _two_stages(reduce, axis, parts).reshape(node.shape)


def _chunk_count(reduce: Node, terms: int, results: int, target: Target) -> int:
    """How many chunks are wanted, at most."""
    most = min(16 * max(4, target.threads), terms // SHORTEST_CHUNK)
    if results <= RESULTS_PER_THREAD * target.threads:
        return most
    if is_contraction(reduce):
        return min(most, MOST_PARTIALS // results)
    return 0


def is_contraction(reduce: Node) -> bool:
    """Whether the node sums products of which a factor repeats: a matrix product or like it."""
    value = reduce.src[0]
    while value.op in MOVEMENT or value.op is Op.CAST:
        value = value.src[0]
    if reduce.arg[0] is not Op.ADD or value.op is not Op.MUL:
        return False
    return any(
        s.shape and any(constant_along(s, axis) and n != 1 for axis, n in enumerate(s.shape))
        for s in value.src
    )


def _chunk_axis(reduce: Node, chunks: int) -> tuple[int, int]:
    """The reduced axis to cut and into how many parts: the outermost that can be cut well."""
    best = (0, 0)
    for axis in reduce.arg[1]:
        extent = reduce.src[0].shape[axis]
        assert isinstance(extent, int)
        parts = max((d for d in range(1, min(chunks, extent) + 1) if extent % d == 0), default=1)
        if parts * 4 >= chunks:
            return (axis, parts)
        if parts > best[1]:
            best = (axis, parts)
    return best


def _two_stages(reduce: Node, axis: int, parts: int) -> Node:
    op, axes = reduce.arg
    source = reduce.src[0]
    extent = source.shape[axis]
    assert isinstance(extent, int)
    rank = len(source.shape)
    cut = source.reshape((*source.shape[:axis], parts, extent // parts, *source.shape[axis + 1 :]))
    order = (axis, *range(axis), *range(axis + 1, rank + 1))
    first = cut.permute(order).reduce(op, tuple(a + 1 for a in axes)).contiguous()
    return first.reduce(op, (0,)).reshape(reduce.shape)
