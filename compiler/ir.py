"""The one expression graph: immutable, interned nodes from a tensor down to a machine loop.

Every level uses the same `Node(op, dtype, src, arg)`. Three families of ops exist:

* tensor ops have a `shape` and name whole arrays (`BUFFER`, movement, `REDUCE`, arithmetic);
* kernel ops are scalars over loop indices (`RANGE`, `LOAD`, `STORE`, arithmetic);
* linear ops appear only in the instruction list that a renderer prints (`LOOP`, `ACC`, ...).

Arithmetic is the same everywhere. Two equal nodes are one object, so `is` compares graphs.
"""

from __future__ import annotations

import functools
import hashlib
import itertools
import math
import operator
from collections.abc import Callable, Iterable, Iterator, Mapping
from enum import IntEnum, auto
from typing import Any, NamedTuple, TypeAlias
from weakref import WeakValueDictionary

from compiler.dtype import ConstType, DType, dtypes
from compiler.errors import NotAnIndex, NotDecided

Extent: TypeAlias = "int | Node"
Shape: TypeAlias = "tuple[Extent, ...]"


class Op(IntEnum):
    """What a node does. Docstrings of arguments: see `docs/ir.md`."""

    # sources
    BUFFER = auto()  # arg BufferArg: storage of a device, shape (size,)
    PARAM = auto()  # arg (position, size): a kernel's buffer argument, shape (size,)
    CONST = auto()  # arg value, shape ()
    VARIABLE = auto()  # arg (name, min, max): an integer known at launch
    BIND = auto()  # src (VARIABLE, CONST): a Variable with its present value
    IOTA = auto()  # arg extent: 0, 1, 2, ... as dtypes.index, shape (extent,)
    # movement: an output index becomes one input index
    RESHAPE = auto()  # arg shape
    PERMUTE = auto()  # arg order: output axis i is input axis order[i]
    EXPAND = auto()  # arg shape: extents of 1 repeat
    PAD = auto()  # arg ((before, after), ...): zeros around
    SHRINK = auto()  # arg ((start, stop), ...)
    FLIP = auto()  # arg axes
    SKEW = auto()  # arg (axis, by, step, offset, extent): axis index i reads i + step*k + offset
    # arrays
    GATHER = auto()  # src (x, positions): x[positions] along axis 0; outside reads 0
    REDUCE = auto()  # arg (op, axes): reduced axes stay with extent 1
    CONTIGUOUS = auto()  # the same values in memory of their own, in row-major order
    COPY = auto()  # arg device: the same values on another device
    DETACH = auto()  # the same values without gradient
    ASSIGN = auto()  # src (target, value): writes value through target, a view of storage
    AFTER = auto()  # src (base, *effects): base, once the ASSIGNs have happened
    # arithmetic, elementwise; what a new accelerator renders
    ADD = auto()
    MUL = auto()
    DIV = auto()  # floats
    IDIV = auto()  # integers, towards zero (dtypes.index: towards minus infinity)
    MOD = auto()  # the remainder that belongs to IDIV
    MAX = auto()  # NaN if either is NaN
    CMPLT = auto()
    CMPNE = auto()
    CMPEQ = auto()
    AND = auto()
    OR = auto()
    XOR = auto()
    SHL = auto()
    SHR = auto()  # arithmetic for signed integers
    WHERE = auto()  # src (condition, if true, if false)
    SQRT = auto()
    EXP2 = auto()
    LOG2 = auto()
    SIN = auto()
    TRUNC = auto()
    CAST = auto()
    BITCAST = auto()
    # kernels
    RANGE = auto()  # src (extent,), arg (id, reduces): an index below extent
    LOAD = auto()  # src (pointer, index[, gate]): 0 where the gate is false
    STORE = auto()  # src (pointer, index, value[, gate])
    # linear instructions
    GRID = auto()  # arg axis: this block's position; src () or (number of blocks,)
    THREAD = auto()  # src (threads,), arg axis: this thread's position in its block
    LOOP = auto()  # src (start, stop, step), arg id: value is the counter
    END = auto()  # src (loop,)
    ACC = auto()  # src (initial value,), arg id: a register that changes
    UPDATE = auto()  # src (acc, value), arg op: acc = op(acc, value)
    GET = auto()  # src (acc,), arg id of the place: the register's value there
    MATRIX = auto()  # src (acc, a, b), arg MatrixUnit: acc += a·b, by a wave's threads together
    LOCAL = auto()  # arg (id, size): a block's scratch array
    BROADCAST = auto()  # src (scalar,): the same in every lane
    STACK = auto()  # src one scalar per lane
    LANE = auto()  # src (vector,), arg lane: one scalar of it
    RAMP = auto()  # 0, 1, 2, ... in the lanes
    REDUCE_LANES = auto()  # src (vector,), arg op: all lanes combined
    BARRIER = auto()

    def __repr__(self) -> str:
        return self.name


MOVEMENT = frozenset({Op.RESHAPE, Op.PERMUTE, Op.EXPAND, Op.PAD, Op.SHRINK, Op.FLIP, Op.SKEW})
ALU = frozenset(Op(i) for i in range(Op.ADD, Op.BITCAST + 1))
COMPARE = frozenset({Op.CMPLT, Op.CMPNE, Op.CMPEQ})


class BufferArg(NamedTuple):
    """Names one piece of device storage: a unique number, its device, its element count."""

    uid: int
    device: str
    size: int


_uids = itertools.count()
_interned: WeakValueDictionary[tuple[Any, ...], Node] = WeakValueDictionary()


class Node:
    """One immutable expression. Build tensor nodes with the methods below.

    `shape` is () for scalars; an elementwise op takes sources of one common shape, and
    scalars besides. `origin` (file, line) says which line of a user's program made it; it
    does not take part in identity.
    """

    __slots__ = (
        "op",
        "dtype",
        "src",
        "arg",
        "shape",
        "device",
        "origin",
        "_digest",
        "_linear",
        "_bounds",
        "__weakref__",
    )
    op: Op
    dtype: DType
    src: tuple[Node, ...]
    arg: Any
    shape: Shape
    device: str | None
    origin: tuple[str, int] | None
    _digest: bytes
    _linear: tuple[dict[Node, int], int]
    _bounds: tuple[int, int]

    def __new__(cls, op: Op, dtype: DType, src: tuple[Node, ...] = (), arg: Any = None) -> Node:
        """The one node with these parts."""
        # A float constant's key is its bits: -0.0 is not 0.0, and NaN equals itself.
        named = arg.hex() if op is Op.CONST and isinstance(arg, float) else arg
        key = (op, dtype, src, named)
        found = _interned.get(key)
        if found is not None:
            return found
        self = object.__new__(cls)
        self.op, self.dtype, self.src, self.arg = op, dtype, src, arg
        self.origin = None
        self.shape = _infer_shape(op, src, arg)
        self.device = _infer_device(op, src, arg)
        _interned[key] = self
        return self

    def __reduce__(self) -> tuple[Any, ...]:
        return (Node, (self.op, self.dtype, self.src, self.arg))

    # ---- making tensor nodes ----
    @staticmethod
    def const(value: ConstType, dtype: DType) -> Node:
        """A scalar constant, wrapped or rounded to `dtype`."""
        return Node(Op.CONST, dtype, (), dtype.const(value))

    @staticmethod
    def buffer(dtype: DType, size: int, device: str) -> Node:
        """New storage of `size` elements, different from every other."""
        return Node(Op.BUFFER, dtype, (), BufferArg(next(_uids), device, size))

    @staticmethod
    def variable(name: str, low: int, high: int) -> Node:
        """An integer in [low, high] whose value is given at launch."""
        return Node(Op.VARIABLE, dtypes.index, (), (name, low, high))

    @staticmethod
    def iota(extent: Extent) -> Node:
        """0, 1, ..., extent-1 as a vector of dtypes.index."""
        return Node(Op.IOTA, dtypes.index, (), extent)

    def alu(self, op: Op, *others: Node) -> Node:
        """An elementwise operation with this node as first source."""
        src = (self, *others)
        dtype = dtypes.bool if op in COMPARE else src[-1].dtype
        return Node(op, dtype, src)

    def cast(self, dtype: DType) -> Node:
        """The same values in another type."""
        if dtype is self.dtype:
            return self
        if self.op is Op.CONST:
            return Node.const(self.arg, dtype)
        return Node(Op.CAST, dtype, (self,))

    def bitcast(self, dtype: DType) -> Node:
        """The same bits as another type of the same width."""
        return self if dtype is self.dtype else Node(Op.BITCAST, dtype, (self,))

    def reshape(self, shape: Shape) -> Node:
        """The same elements in row-major order under another shape."""
        if shape == self.shape:
            return self
        if self.op is Op.RESHAPE:
            return self.src[0].reshape(shape)
        return Node(Op.RESHAPE, self.dtype, (self,), shape)

    def permute(self, order: tuple[int, ...]) -> Node:
        """Axes in another order."""
        if order == tuple(range(len(order))):
            return self
        if self.op is Op.PERMUTE:
            return self.src[0].permute(tuple(self.arg[axis] for axis in order))
        return Node(Op.PERMUTE, self.dtype, (self,), order)

    def expand(self, shape: Shape) -> Node:
        """Axes of extent 1 repeated."""
        return self if shape == self.shape else Node(Op.EXPAND, self.dtype, (self,), shape)

    def pad(self, amounts: tuple[tuple[Extent, Extent], ...]) -> Node:
        """Zeros before and after along each axis."""
        if all(a == (0, 0) for a in amounts):
            return self
        return Node(Op.PAD, self.dtype, (self,), amounts)

    def shrink(self, limits: tuple[tuple[Extent, Extent], ...]) -> Node:
        """The part [start, stop) of each axis."""
        if limits == tuple((0, extent) for extent in self.shape):
            return self
        return Node(Op.SHRINK, self.dtype, (self,), limits)

    def flip(self, axes: tuple[int, ...]) -> Node:
        """Given axes reversed."""
        return Node(Op.FLIP, self.dtype, (self,), tuple(sorted(axes))) if axes else self

    def skew(self, axis: int, by: int, step: int, offset: int, extent: Extent) -> Node:
        """Reads position i + step*k + offset of `axis`, k being the index along axis `by`.

        The result's `axis` has `extent` positions; every position read must exist.
        Sliding windows are a skew of an expanded axis, and their adjoint is a skew too.
        """
        return Node(Op.SKEW, self.dtype, (self,), (axis, by, step, offset, extent))

    def gather(self, positions: Node) -> Node:
        """x[positions] along axis 0: shape positions.shape + x.shape[1:]; outside reads 0."""
        return Node(Op.GATHER, self.dtype, (self, positions))

    def reduce(self, op: Op, axes: tuple[int, ...]) -> Node:
        """All elements along `axes` combined by ADD, MUL or MAX; those axes become 1."""
        axes = tuple(sorted(axes))
        return Node(Op.REDUCE, self.dtype, (self,), (op, axes)) if axes else self

    def contiguous(self) -> Node:
        """A copy in memory of its own."""
        return Node(Op.CONTIGUOUS, self.dtype, (self,))

    def copy_to(self, device: str) -> Node:
        """The same values on `device`."""
        return Node(Op.COPY, self.dtype, (self,), device)

    def detach(self) -> Node:
        """The same values, behind which no gradient goes."""
        return Node(Op.DETACH, self.dtype, (self,))

    def assign(self, value: Node) -> Node:
        """The write of `value` through this view of storage; see `after`."""
        return Node(Op.ASSIGN, self.dtype, (self, value))

    def after(self, *effects: Node) -> Node:
        """This node as it is once the given ASSIGNs have happened."""
        return Node(Op.AFTER, self.dtype, (self, *effects))

    # ---- asking ----
    @property
    def size(self) -> int:
        """Number of elements at most (Variables count with their greatest value)."""
        return math.prod(upper(extent) for extent in self.shape)

    @property
    def base(self) -> Node:
        """What is left when movement ops and DETACH are taken off."""
        node = self
        while node.op in MOVEMENT or node.op is Op.DETACH:
            node = node.src[0]
        return node

    @property
    def digest(self) -> bytes:
        """A hash of the structure, the same in every process (but for BUFFER numbers)."""
        if hasattr(self, "_digest"):
            return self._digest
        for node in toposort(self, lambda n: not hasattr(n, "_digest")):
            if not hasattr(node, "_digest"):
                h = hashlib.blake2b(digest_size=16)
                h.update(f"{node.op.name} {node.dtype!r} {_stable(node.arg)}".encode())
                for s in node.src:
                    h.update(s._digest)
                node._digest = h.digest()
        return self._digest

    def with_src(self, src: tuple[Node, ...]) -> Node:
        """The same operation on other sources."""
        if src == self.src:
            return self
        node = Node(self.op, self.dtype, src, self.arg)
        if node.origin is None:
            node.origin = self.origin
        return node

    def __repr__(self) -> str:
        if self.op is Op.CONST:
            return f"{self.arg}" if self.dtype is dtypes.index else f"{self.dtype.name}({self.arg})"
        if self.op is Op.VARIABLE:
            return str(self.arg[0])
        if self.op is Op.BIND:
            return f"{self.src[0]}={self.src[1]}"
        if self.op in _SIGNS and self.src[0].dtype is dtypes.index:
            return _SIGNS[self.op].join(map(_factor_text, self.src))
        if self.op is Op.RANGE:
            return f"{'k' if self.arg[1] else 'i'}{self.arg[0]}"
        inner = ", ".join(map(repr, self.src))
        arg = "" if self.arg is None else f"[{self.arg}]"
        return f"{self.op.name}{arg}({inner})"

    def __bool__(self) -> bool:
        """True, as for any object, but that what Variables decide cannot be asked yet."""
        if self.op is Op.CONST and self.dtype is dtypes.bool:
            return bool(self.arg)
        if self.op is Op.CMPLT and self.src[0].dtype is dtypes.index:
            raise NotDecided(
                f"Python asks whether {self!r}, which a Variable decides at each launch.",
                operation="bool",
                remedy="Compare inside the computation (`where`), or before binding the Variable.",
            )
        return True

    # ---- index arithmetic (dtypes.index), simplified as it is written ----
    def __add__(self, other: Extent) -> Node:
        return symbolic.add(self, index(other))

    def __radd__(self, other: Extent) -> Node:
        return symbolic.add(index(other), self)

    def __sub__(self, other: Extent) -> Node:
        return symbolic.add(self, symbolic.mul(index(other), index(-1)))

    def __rsub__(self, other: Extent) -> Node:
        return symbolic.add(index(other), symbolic.mul(self, index(-1)))

    def __neg__(self) -> Node:
        return symbolic.mul(self, index(-1))

    def __mul__(self, other: Extent) -> Node:
        return symbolic.mul(self, index(other))

    def __rmul__(self, other: Extent) -> Node:
        return symbolic.mul(index(other), self)

    def __floordiv__(self, other: Extent) -> Node:
        return symbolic.idiv(self, index(other))

    def __mod__(self, other: Extent) -> Node:
        return symbolic.mod(self, index(other))

    def __lt__(self, other: Extent) -> Node:
        return symbolic.less(self, index(other))

    def __gt__(self, other: Extent) -> Node:
        return symbolic.less(index(other), self)

    def __le__(self, other: Extent) -> Node:
        return symbolic.less(self, index(other) + 1)

    def __ge__(self, other: Extent) -> Node:
        return symbolic.less(index(other), self + 1)


def index(value: Extent) -> Node:
    """`value` as an index node."""
    if isinstance(value, Node):
        return value
    try:
        return _index_constant(operator.index(value))
    except TypeError:
        raise NotAnIndex(
            f"A Variable is combined with a {type(value).__name__}, not with an integer.",
            operation="index",
            remedy="In arithmetic with a Tensor the Tensor stands first: `tensor * n`.",
        ) from None


def _factor_text(node: Node) -> str:
    """A node as it stands within a sum or product."""
    return f"({node!r})" if node.op in _SIGNS else repr(node)


_SIGNS = {Op.ADD: " + ", Op.MUL: " * ", Op.IDIV: " // ", Op.MOD: " % ", Op.CMPLT: " < "}


@functools.lru_cache(4096)
def _index_constant(value: int) -> Node:
    return Node(Op.CONST, dtypes.index, (), value)


def upper(extent: Extent) -> int:
    """The greatest value an extent can have."""
    if isinstance(extent, int):
        return extent
    return int(symbolic.bounds(extent)[1])


def _infer_shape(op: Op, src: tuple[Node, ...], arg: Any) -> Shape:
    if op in ALU:
        for s in src:
            if s.shape:
                return s.shape
        return ()
    match op:
        case Op.BUFFER:
            return (arg.size,)
        case Op.PARAM:
            return (arg[1],)
        case Op.IOTA:
            return (arg,)
        case Op.RESHAPE | Op.EXPAND:
            return tuple(arg)
        case Op.PERMUTE:
            shape = src[0].shape
            return tuple(shape[axis] for axis in arg)
        case Op.PAD:
            padded = (n + lo + hi for n, (lo, hi) in zip(src[0].shape, arg, strict=True))
            return tuple(_extent(extent) for extent in padded)
        case Op.SHRINK:
            return tuple(_extent(stop - start) for start, stop in arg)
        case Op.FLIP | Op.CONTIGUOUS | Op.COPY | Op.DETACH | Op.ASSIGN | Op.AFTER:
            return src[0].shape
        case Op.SKEW:
            axis, _, _, _, extent = arg
            shape = src[0].shape
            return (*shape[:axis], extent, *shape[axis + 1 :])
        case Op.GATHER:
            return (*src[1].shape, *src[0].shape[1:])
        case Op.REDUCE:
            return tuple(1 if i in arg[1] else n for i, n in enumerate(src[0].shape))
        case _:
            return ()


def _extent(value: Extent) -> Extent:
    if isinstance(value, Node) and value.op is Op.CONST:
        return int(value.arg)
    return value


def _infer_device(op: Op, src: tuple[Node, ...], arg: Any) -> str | None:
    if op is Op.BUFFER:
        return str(arg.device)
    if op is Op.COPY:
        return str(arg)
    for s in src:
        if s.device is not None:
            return s.device
    return None


def _stable(arg: Any) -> str:
    if isinstance(arg, Node):
        return arg.digest.hex()
    if isinstance(arg, tuple):
        return "(" + ",".join(_stable(a) for a in arg) + ")"
    if isinstance(arg, float):
        return arg.hex()
    return repr(arg)


# ---- walking and rewriting ----


def toposort(root: Node, enter: Callable[[Node], bool] | None = None) -> list[Node]:
    """Every node below `root`, sources before their users; iterative, so of any depth.

    `enter(node)` false keeps the walk from going below that node.
    """
    order: list[Node] = []
    seen: set[Node] = set()
    stack: list[tuple[Node, bool]] = [(root, False)]
    while stack:
        node, done = stack.pop()
        if done:
            order.append(node)
        elif node not in seen:
            seen.add(node)
            stack.append((node, True))
            if enter is None or enter(node):
                stack.extend((s, False) for s in reversed(node.src) if s not in seen)
    return order


def substitute(root: Node, replacements: Mapping[Node, Node]) -> Node:
    """`root` with nodes replaced; replacements are not searched again.

    Nodes inside arguments (symbolic extents) are replaced too.
    """
    done: dict[Node, Node] = dict(replacements)
    for node in toposort(root, lambda n: n not in replacements):
        if node in done:
            continue
        src = tuple(done[s] for s in node.src)
        arg = _substitute_arg(node.arg, replacements)
        if arg is node.arg:
            done[node] = symbolic.with_sources(node, src)
        else:
            done[node] = Node(node.op, node.dtype, src, arg)
            done[node].origin = node.origin
    return done[root]


def _substitute_arg(arg: Any, replacements: Mapping[Node, Node]) -> Any:
    if isinstance(arg, Node):
        return _extent(substitute(arg, replacements))
    if type(arg) is tuple and arg:
        new = tuple(_substitute_arg(a, replacements) for a in arg)
        return arg if all(a is b for a, b in zip(arg, new, strict=True)) else new
    return arg


Rule: TypeAlias = Callable[[Node], "Node | None"]


class Rules:
    """A set of declared rewrite rules.

    A rule is a function of a node that returns its replacement, or None to leave it; it is
    declared with the ops it looks at: `@rules.on(Op.ADD)`. Python's `match` on
    `Node(op=..., src=(...))` says what the pattern is.
    """

    def __init__(self, *included: Rules) -> None:
        self._by_op: dict[Op, list[Rule]] = {}
        for rules in included:
            for op, declared in rules._by_op.items():
                self._by_op.setdefault(op, []).extend(declared)

    def on(self, *ops: Op) -> Callable[[Rule], Rule]:
        """Declares a rule for nodes with one of `ops`."""

        def declare(rule: Rule) -> Rule:
            for op in ops:
                self._by_op.setdefault(op, []).append(rule)
            return rule

        return declare

    def apply(self, node: Node) -> Node | None:
        """The first rule's replacement that changes `node`, or None."""
        for rule in self._by_op.get(node.op, ()):
            new = rule(node)
            if new is not None and new is not node:
                if new.origin is None:
                    new.origin = node.origin
                return new
        return None

    def rewrite(self, root: Node) -> Node:
        """`root` with the rules applied everywhere, from the sources up, until none fits."""
        done: dict[Node, Node] = {}
        waits_for: dict[Node, Node] = {}  # a node -> its replacement, itself still to rewrite
        stack: list[Node] = [root]
        while stack:
            node = stack[-1]
            if node in done:
                stack.pop()
            elif node in waits_for:
                done[node] = done[waits_for.pop(node)]
            elif missing := [s for s in node.src if s not in done]:
                stack.extend(missing)
            else:
                rebuilt = node.with_src(tuple(done[s] for s in node.src))
                new = self.apply(rebuilt)
                if new is None:
                    done[node] = done[rebuilt] = rebuilt
                else:
                    waits_for[node] = new
                    stack.append(new)
        return done[root]


def users(root: Node) -> dict[Node, list[Node]]:
    """For every node below `root`, the nodes that have it as a source (once each)."""
    found: dict[Node, list[Node]] = {}
    for node in toposort(root):
        found.setdefault(node, [])
        for s in dict.fromkeys(node.src):
            found[s].append(node)
    return found


def find(root: Node, *ops: Op) -> Iterator[Node]:
    """Every node below `root` with one of `ops`, sources first."""
    return (node for node in toposort(root) if node.op in ops)


def chain(op: Op, nodes: Iterable[Node]) -> Node:
    """The nodes combined left to right by `op`."""
    it = iter(nodes)
    result = next(it)
    for node in it:
        result = result.alu(op, node)
    return result


# Index operators above use it, and it uses Node: the import stands where both can be.
from compiler import symbolic  # noqa: E402
