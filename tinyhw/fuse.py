"""Where to cut a graph into kernels: which nodes get storage of their own.

Every stored node is the one output of one kernel; everything between it and other storage is
computed inside that kernel. The rules, each for a reason:

* A kernel has one REDUCE at most. What stands before it (elementwise, movement) and after it
  (elementwise on its results) is fused.
* What is read more than once for each element (the source of an EXPAND, or of a GATHER) is
  stored if it costs more than a cast: a sum over a product of expanded matrices stays one
  kernel, while an activation before it is computed once.
* A padded operand that a reduce reads many times is stored padded, so that the reduce's inner
  loop has no conditions.
* What several kernels use is stored, unless computing it again costs less than storing and
  reading it.
* A kernel has a limited number of buffers and operations.
"""

from __future__ import annotations

import heapq
from collections.abc import Iterable

from compiler.dtype import dtypes
from compiler.ir import ALU, MOVEMENT, Node, Op
from tinyhw.prepare import users_of

MOST_BUFFERS = 24
MOST_NODES = 400
# One transcendental costs about as many vector instructions.
TRANSCENDENTAL_COST = 8
# Several kernels each compute a value again up to this cost.
RECOMPUTE_COST = 16
# Values that depend on no storage cost nothing to read: more of them is computed repeatedly.
CONSTANT_COST = 12
# How far to look for the place where all uses of a value meet again.
CONVERGENCE_STEPS = 64

_FREE = frozenset({Op.CAST, Op.BITCAST})
_TRANSCENDENTAL = frozenset({Op.EXP2, Op.LOG2, Op.SIN})
_COMPUTED = ALU | {Op.REDUCE, Op.GATHER}
_STORED = frozenset({Op.BUFFER, Op.AFTER, Op.CONTIGUOUS, Op.COPY})

# What users of a node do with it, through movement ops.
_REREAD, _PADDED, _REDUCED = 1, 2, 4


class Fusion:
    """Decides over `order`, a topological order of a whole graph; the answer is `stored`.

    `stored` are nodes with storage of their own besides BUFFER and AFTER. ASSIGN nodes are
    kernels too, but write into existing storage.
    """

    def __init__(self, order: list[Node], outputs: Iterable[Node]) -> None:
        self.order = order
        self.users = users_of(order)
        self.position = {node: i for i, node in enumerate(order)}
        self.stored = {n for n in order if n.op is Op.CONTIGUOUS or n.op is Op.COPY}
        self.stored.update(outputs)
        for node in order:
            if node.op is Op.AFTER or node.op is Op.ASSIGN:
                self._store_base(node.src[0])
            elif node.op is Op.COPY:
                self._store_base(node.src[0])
        self.demand: dict[Node, int] = {}
        # Per node, as sets of bits by position: what its kernel computes and reads.
        self.work: dict[Node, int] = {}
        self.leaves: dict[Node, int] = {}
        self.reduces: dict[Node, int] = {}
        self.free = self.costly = 0
        self._look_up()
        self._look_down()

    def _store_base(self, node: Node) -> None:
        base = node.base
        if base.op is not Op.BUFFER and base.op is not Op.AFTER:
            self.stored.add(base)

    # ---- from users to sources ----

    def _look_up(self) -> None:
        """Finds for every node what its users, seen through movement, do with it."""
        demand = self.demand
        for node in reversed(self.order):
            found = 0
            for user in self.users[node]:
                op = user.op
                above = 0 if user in self.stored else demand[user]
                if op is Op.EXPAND:
                    found |= above | _REREAD
                elif op is Op.PAD:
                    found |= above | _PADDED
                elif op in MOVEMENT:
                    found |= above
                elif op is Op.REDUCE:
                    found |= _REDUCED
                elif op is Op.GATHER:
                    repeats = node is user.src[0] or len(user.src[0].shape) > 1
                    found |= above & _REDUCED | (_REREAD if repeats else 0)
                elif op in ALU:
                    found |= above & _REDUCED
            demand[node] = found
            if node.op is Op.PAD and found & _REREAD and found & _REDUCED:
                if node.base.op not in (Op.CONST, Op.IOTA, Op.VARIABLE):
                    self.stored.add(node)

    # ---- from sources to users ----

    def _look_down(self) -> None:
        for node in self.order:
            op = node.op
            if op is Op.BUFFER or op is Op.AFTER:
                self._set(node, 0, 1 << self.position[node], 0)
            elif not node.src or op is Op.COPY:
                self._set(node, 0, 0, 0)
            elif op in _COMPUTED:
                self._visit(node)
            elif op is Op.ASSIGN:
                self._visit_assign(node)
            else:
                self._inherit(node)
                if node in self.stored:
                    self._limit(node)
        for node in self.order:
            if node.op is Op.CONTIGUOUS:
                self._limit(node)

    def _set(self, node: Node, work: int, leaves: int, reduces: int) -> None:
        self.work[node], self.leaves[node], self.reduces[node] = work, leaves, reduces

    def _seen(self, node: Node) -> tuple[int, int, int]:
        """What a user takes over from `node`: only a leaf where it is stored."""
        if node in self.stored:
            return (0, 1 << self.position[node], 0)
        return (self.work[node], self.leaves[node], self.reduces[node])

    def _inherit(self, node: Node) -> None:
        work = leaves = reduces = 0
        for s in node.src:
            w, le, r = self._seen(s)
            work |= w
            leaves |= le
            reduces |= r
        self._set(node, work, leaves, reduces)

    def _visit(self, node: Node) -> None:
        """A node that computes: first what must be cut below it, then whether to store it."""
        bit = 1 << self.position[node]
        op = node.op
        self._inherit(node)
        if op is Op.REDUCE:
            if self.reduces[node]:
                self._store(node.src[0])
                self._inherit(node)
            self.reduces[node] |= bit
        else:
            self._keep_one_reduce(node)
            if op in _FREE:
                self.free |= bit
            elif op in _TRANSCENDENTAL:
                self.costly |= bit
        self.work[node] |= bit
        self._limit(node)
        if node not in self.stored and node.dtype is not dtypes.index and self._must_store(node):
            self.stored.add(node)

    def _visit_assign(self, node: Node) -> None:
        """An ASSIGN reads the storage that it writes only at the place of each write."""
        target, value = node.src
        self._inherit(node)
        if not reads_in_place(value, target, self.stored):
            self.stored.add(value)
            self._inherit(node)
        self._limit(node)

    def _store(self, node: Node) -> None:
        """Stores what `node` is a movement of."""
        while node.op in MOVEMENT and node not in self.stored:
            node = node.src[0]
        if node.op not in _COMPUTED or node in self.stored:
            return
        self.stored.add(node)
        views = [node]
        while views:  # the movement ops above it have been visited already
            for user in self.users[views.pop()]:
                if user.op in MOVEMENT and user in self.work:
                    self._inherit(user)
                    views.append(user)

    def _keep_one_reduce(self, node: Node) -> None:
        if self.reduces[node].bit_count() < 2:
            return
        kept = 0
        for s in sorted(node.src, key=self._reduce_size, reverse=True):
            reduces = self._seen(s)[2]
            if (kept | reduces).bit_count() > 1:
                self._store(s)
            else:
                kept |= reduces
        self._inherit(node)

    def _reduce_size(self, node: Node) -> int:
        """How many terms the REDUCE in `node`'s kernel combines."""
        reduces = self._seen(node)[2]
        return self.order[reduces.bit_length() - 1].src[0].size if reduces else 0

    def _limit(self, node: Node) -> None:
        """Stores sources until the kernel of `node` has few enough buffers and operations."""
        while self._too_big(node):
            candidates = [s for s in node.src if self._seen(s)[0] and s.dtype is not dtypes.index]
            if not candidates:
                return
            self._store(max(candidates, key=self._bulk))
            bit = self.work[node] & (1 << self.position[node])
            reduces = self.reduces[node] & bit
            self._inherit(node)
            self.work[node] |= bit
            self.reduces[node] |= reduces

    def _too_big(self, node: Node) -> bool:
        return (
            self.leaves[node].bit_count() >= MOST_BUFFERS
            or self.work[node].bit_count() > MOST_NODES
        )

    def _bulk(self, node: Node) -> tuple[int, int]:
        work, leaves, _ = self._seen(node)
        return leaves.bit_count(), work.bit_count()

    def cost(self, node: Node) -> int:
        """About how many vector instructions each element of `node` takes to compute again."""
        work = self.work[node]
        transcendental = (work & self.costly).bit_count()
        free = (work & self.free).bit_count()
        return work.bit_count() - free + (TRANSCENDENTAL_COST - 1) * transcendental

    # ---- whether to store ----

    def _must_store(self, node: Node) -> bool:
        demand = self.demand[node]
        if demand & _REREAD and self._repeats_work(node, demand):
            return True
        reduces = self.reduces[node]
        if reduces and demand & _PADDED:
            return True
        uses = self._uses(node)
        if len(uses) < 2:
            return False
        one_view = len({view for _, view in uses}) == 1
        if one_view and self._converges({user for user, _ in uses}):
            return False
        return bool(reduces) or self._dear(node, len(uses))

    def _uses(self, node: Node) -> set[tuple[Node, Node | None]]:
        """Who uses `node` through movement ops, and through which (None: as it is, or reshaped).

        One kernel that uses two views of a value computes it twice.
        """
        found: set[tuple[Node, Node | None]] = set()
        todo: list[tuple[Node, Node | None]] = [(user, None) for user in self.users[node]]
        while todo:
            user, view = todo.pop()
            if user.op in MOVEMENT and user not in self.stored:
                view = view if user.op is Op.RESHAPE else user
                todo += [(above, view) for above in self.users[user]]
            else:
                found.add((user, view))
        return found

    def _repeats_work(self, node: Node, demand: int) -> bool:
        """Whether reading `node` many times would compute too much again."""
        if self.reduces[node]:
            return True
        cost = self.cost(node)
        if not self.leaves[node]:
            return cost > CONSTANT_COST
        return cost > (0 if demand & _REDUCED and node.size > 1 else 1)

    def _dear(self, node: Node, uses: int) -> bool:
        """Whether storing `node` for its uses is cheaper than computing it in each of them."""
        cost = self.cost(node)
        leaves = self.leaves[node]
        if not leaves:
            return cost > CONSTANT_COST
        if cost > RECOMPUTE_COST:
            return True
        big = sum(1 for leaf in self._bits(leaves) if leaf.size * 4 >= node.size)
        return uses * big > big + 1 + uses

    def _bits(self, bits: int) -> Iterable[Node]:
        while bits:
            low = bits & -bits
            yield self.order[low.bit_length() - 1]
            bits ^= low

    def _converges(self, uses: Iterable[Node]) -> bool:
        """Whether all these users meet again in one kernel, elementwise all the way."""
        position = self.position
        heap = [position[user] for user in uses]
        heapq.heapify(heap)
        seen = set(heap)
        for _ in range(CONVERGENCE_STEPS):
            at = heapq.heappop(heap)
            if not heap:
                return True
            user = self.order[at]
            op = user.op
            if user in self.stored or op is Op.EXPAND or op is Op.PAD:
                return False
            if op not in ALU and op not in MOVEMENT:
                return False
            for above in self.users[user]:
                p = position[above]
                if p not in seen:
                    seen.add(p)
                    heapq.heappush(heap, p)
        return False


def reads_in_place(value: Node, target: Node, stored: set[Node]) -> bool:
    """Whether `value` reads the storage under `target` only where `target` stands itself.

    Then each element may be overwritten as soon as it is computed.
    """
    storages = {target.base, storage_of(target)}
    todo: list[tuple[Node, tuple[Node, ...] | None]] = [(value, ())]
    seen = set(todo)
    while todo:
        node, moves = todo.pop()
        if node in stored and node not in storages:
            continue
        if node.op in _STORED or node in storages:
            if node.op is Op.COPY or storage_of(node) not in storages:
                continue
            if moves is None or not _same_view(node, moves, target):
                return False
            continue
        if node.op in MOVEMENT:
            inner: tuple[Node, ...] | None = None if moves is None else (*moves, node)
        else:
            inner = moves if node.op in ALU else None
        for s in node.src:
            place = (s, inner)
            if place not in seen:
                seen.add(place)
                todo.append(place)
    return True


def _same_view(node: Node, moves: tuple[Node, ...], target: Node) -> bool:
    """Whether the movements (outermost first) of storage `node` are the view `target`."""
    if node is not target.base:
        return False
    view = node
    for move in reversed(moves):
        view = view.reshape(move.arg) if move.op is Op.RESHAPE else move.with_src((view,))
    return view is target


def storage_of(node: Node) -> Node:
    """The BUFFER, or the node that is to be stored, under views and AFTERs."""
    while True:
        if node.op in MOVEMENT or node.op is Op.AFTER or node.op is Op.DETACH:
            node = node.src[0]
        else:
            return node
