"""From a lazy graph to a list of kernels and copies over buffers.

`prepare` strips the graph, `rewrite` gives it a shape that cuts well, `fuse` decides what is
stored, this module makes one kernel expression of each stored node, `order` says when it runs.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TypeAlias

from compiler.ir import MOVEMENT, Extent, Node, Op, substitute
from compiler.target import Target
from tinyhw import live
from tinyhw.errors import DeviceError
from tinyhw.fuse import Fusion
from tinyhw.order import Task, order_tasks
from tinyhw.prepare import Preparation, has_variables, rebuilt, walk
from tinyhw.rewrite import rewrite

# So few kernels are left in the order in which they stand in the graph, unless they write.
FEW_TASKS = 4

Sink: TypeAlias = "tuple[Node, str]"
TargetOf: TypeAlias = Callable[[str], Target]


@dataclass(frozen=True)
class KernelCall:
    """One launch. `ast` is ASSIGN(view of PARAM 0, value); PARAM i is `buffers[i]`."""

    ast: Node
    buffers: tuple[Node, ...]
    device: str
    origin: tuple[str, int] | None = None


@dataclass(frozen=True)
class CopyCall:
    """All of the BUFFER `source` to the BUFFER `destination`, which is on another device."""

    destination: Node
    source: Node


Item: TypeAlias = "KernelCall | CopyCall"


@dataclass
class Schedule:
    """What must run, in order, to have everything in `stored` computed.

    `stored` maps nodes of the graphs that were given, and of other live objects' graphs, to
    movement-only views of BUFFERs. `values` are those of Variables. `temporaries` are BUFFERs
    that nothing needs after the last item; `fresh` are those and all other new BUFFERs.
    """

    items: list[Item] = field(default_factory=list)
    stored: dict[Node, Node] = field(default_factory=dict)
    values: dict[str, int] = field(default_factory=dict)
    temporaries: set[Node] = field(default_factory=set)
    fresh: set[Node] = field(default_factory=set)


def schedule(sinks: Sequence[Sink], target_of: TargetOf) -> Schedule:
    """Cuts the graphs of `sinks` (node, the device where it has none) into kernels."""
    preparation = Preparation()
    preparation.run(node for node, _ in sinks)
    done = preparation.done
    if any(node.op is Op.AFTER for node in done):
        sinks = [*sinks, *_pending_readers(preparation, {node for node, _ in sinks})]
    default = sinks[0][1] if sinks else ""
    roots = [done[node] for node, _ in sinks]
    rewritten = rewrite(roots, lambda node: target_of(node.device or default))
    cutter = _Cutter(sinks, {node: rewritten[done[node]] for node, _ in sinks})
    result = cutter.run()
    result.values = preparation.values
    for node, new in done.items():
        known = rewritten.get(new)
        if known is not None and (node.op is Op.AFTER or live.is_base(node)):
            cutter.keep(node, known)
    for node, _ in sinks:
        cutter.keep(node, rewritten[done[node]])
    if preparation.binds:
        result.stored = {n: substitute(v, preparation.binds) for n, v in result.stored.items()}
    result.temporaries = result.fresh - {view.base for view in result.stored.values()}
    return result


def _pending_readers(preparation: Preparation, known: set[Node]) -> list[Sink]:
    """The live graphs that read storage as it was before a write that is to be scheduled.

    They are prepared too, as what they read would be gone afterwards. `known` are sinks already.
    """
    found: list[Sink] = []
    while True:
        done = preparation.done
        overwritten = {node.src[0].base for node in done if node.op is Op.ASSIGN}
        pending = [base for base in live.pending() if base not in known]
        reads: dict[Node, bool] = {}
        for node in walk(pending):
            if node in overwritten:
                reads[node] = True
            elif node.op is Op.AFTER:
                reads[node] = node not in done and any([reads[s] for s in node.src])
            else:
                src = node.src[1:] if node.op is Op.ASSIGN else node.src
                reads[node] = any([reads[s] for s in src])
        new = [base for base in pending if reads[base]]
        if not new:
            return found
        preparation.run(new)
        known.update(new)
        found += [(base, live.device_of(base)) for base in new]


class _Cutter:
    """Makes kernels of one graph: `graph` maps each sink to what is to be computed for it."""

    def __init__(self, sinks: Sequence[Sink], graph: Mapping[Node, Node]) -> None:
        self.result = Schedule()
        self.views: dict[Node, Node] = {}  # a storage node -> a view of its BUFFER
        self.copies: dict[Node, Node] = {}  # a version of storage -> the copy to read instead
        self.order = walk(graph.values())
        self.outputs = _outputs(graph.values())
        self.fusion = Fusion(self.order, self.outputs)
        self.devices: dict[Node, str] = {}
        for node, device in sinks:
            self.devices.setdefault(graph[node], device)
        self._inherit_devices()

    def _inherit_devices(self) -> None:
        """A node that depends on no storage is computed where its first user is."""
        devices = self.devices
        for node in reversed(self.order):
            device = node.device or devices.get(node)
            if device is None:
                continue
            devices[node] = device
            if node.op is not Op.COPY:
                for s in node.src:
                    if s.device is None:
                        devices.setdefault(s, device)

    def run(self) -> Schedule:
        """The whole schedule but for `stored` and `values`."""
        stored = self.fusion.stored
        tasks = [self._task(n) for n in self.order if n in stored or n.op is Op.ASSIGN]
        afters = [n for n in self.order if n.op is Op.AFTER]
        if afters or len(tasks) > FEW_TASKS:
            tasks = self._in_order(tasks, afters)
        for task in tasks:
            item = self._item(task)
            if item is not None:
                self.result.items.append(item)
        return self.result

    def keep(self, node: Node, computed: Node) -> None:
        """Notes where the values of `node` are, if they are stored at all."""
        base = computed.base
        if base.op is Op.BUFFER and node is computed:
            return
        moves = computed
        while moves is not base and moves not in self.fusion.stored:
            moves = moves.src[0]
        if moves in self.fusion.stored or moves.op is Op.BUFFER or moves.op is Op.AFTER:
            self.result.stored[node] = live.rebase(computed, moves, self.view(moves))

    # ---- storage ----

    def view(self, node: Node) -> Node:
        """A storage node as a movement-only view of its BUFFER; makes one where there is none."""
        found = self.views.get(node)
        if found is None:
            if node.op is Op.BUFFER:
                found = node
            elif node.op is Op.AFTER:
                inner = node.src[0]
                while inner.op in MOVEMENT and inner not in self.fusion.stored:
                    inner = inner.src[0]
                found = live.rebase(node.src[0], inner, self.view(inner))
            else:
                found = self._new_storage(node)
            self.views[node] = found
        return found

    def _new_storage(self, node: Node) -> Node:
        device = node.device or self.devices[node]
        buffer = Node.buffer(node.dtype, node.size, device)
        self.result.fresh.add(buffer)
        if not has_variables(node.shape):
            return buffer.reshape(node.shape)
        elements: Extent = 1
        for extent in node.shape:
            elements = elements * extent
        return buffer.shrink(((0, elements),)).reshape(node.shape)

    # ---- kernels ----

    def _task(self, root: Node) -> Task:
        if root.op is Op.COPY:
            source = root.src[0]
            while source.op is Op.RESHAPE and source not in self.fusion.stored:
                source = source.src[0]
            return Task(root, [source], None, (self.view(root).base, self.view(source).base))
        if root.op is Op.ASSIGN:
            target, value = root.src
            version = target.base
            target = live.rebase(target, version, self.view(version))
        else:
            target = self.view(root)
            value = root.src[0] if root.op is Op.CONTIGUOUS else root
        kernel = _KernelMaker(self, target.base)
        ast_value = kernel.expression(value, root)
        ast_target = live.rebase(target, target.base, kernel.params[target.base])
        ast = ast_target.assign(ast_value)
        ast.origin = root.origin or value.origin
        return Task(root, kernel.reads, ast, tuple(kernel.params))

    def _in_order(self, tasks: list[Task], afters: list[Node]) -> list[Task]:
        """The tasks in a valid order, with copies of old contents where there is none without."""
        while True:
            kept = {self.view(node).base for node in self.outputs}
            ordered, copied = order_tasks(tasks, afters, self.result.fresh - kept)
            if not copied:
                return ordered
            again = []
            for version in copied:
                copy = version.contiguous()
                again.append(self._task(copy))
                self.copies[version] = copy
            for task in tasks:
                stale = not copied.isdisjoint(task.reads)
                again.append(self._task(task.root) if stale else task)
            tasks = again

    def _item(self, task: Task) -> Item | None:
        buffers = task.buffers
        written = buffers[0] if task.ast is None else task.ast.src[1]
        if written.size == 0:
            return None
        if task.ast is None:
            return CopyCall(buffers[0], buffers[1])
        device = str(buffers[0].arg.device)
        for buffer in buffers:
            if buffer.arg.device != device:
                raise DeviceError(
                    f"One computation combines tensors on {device} and {buffer.arg.device}.",
                    device=device,
                    operation="realize",
                    remedy="Move one of them with `.to(device)`.",
                )
        return KernelCall(task.ast, buffers, device, task.ast.origin)


class _KernelMaker:
    """Writes one kernel's expression over PARAMs, numbered in the order of their first use."""

    def __init__(self, cutter: _Cutter, output: Node) -> None:
        self.cutter = cutter
        self.params: dict[Node, Node] = {}
        self.reads: list[Node] = []
        self._param(output)

    def _param(self, buffer: Node) -> Node:
        found = self.params.get(buffer)
        if found is None:
            found = Node(Op.PARAM, buffer.dtype, (), (len(self.params), buffer.arg.size))
            self.params[buffer] = found
        return found

    def expression(self, value: Node, root: Node) -> Node:
        """`value` with views of PARAMs in the place of storage."""
        stored = self.cutter.fusion.stored
        done: dict[Node, Node] = {}
        stack = [value]
        while stack:
            node = stack[-1]
            if node in done:
                stack.pop()
                continue
            leaf = node.op is Op.BUFFER or node.op is Op.AFTER
            if leaf or (node in stored and node is not root):
                done[node] = self._leaf(node)
                stack.pop()
                continue
            missing = [s for s in node.src if s not in done]
            if missing:
                stack.extend(reversed(missing))
                continue
            done[node] = rebuilt(node, tuple([done[s] for s in node.src]))
            stack.pop()
        return done[value]

    def _leaf(self, node: Node) -> Node:
        node = self.cutter.copies.get(node, node)
        self.reads.append(node)
        view = self.cutter.view(node)
        buffer = view.base
        return live.rebase(view, buffer, self._param(buffer))


def _outputs(roots: Iterable[Node]) -> set[Node]:
    """The nodes that must be stored so that every root is a view of something stored."""
    bare = []
    for node in roots:
        while node.op is Op.RESHAPE:
            node = node.src[0]
        bare.append(node)
    storage = (Op.BUFFER, Op.AFTER)
    outputs = {n for n in bare if n.op not in MOVEMENT and n.op not in storage}
    for node in bare:
        if node.op in MOVEMENT:
            base = node.base
            at_hand = base.op in storage or base.op in (Op.CONTIGUOUS, Op.COPY)
            if not at_hand and base not in outputs:
                outputs.add(node)
    return outputs
