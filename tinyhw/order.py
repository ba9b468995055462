"""The order of kernels: values before their uses, old contents before what overwrites them.

Among what is ready, that runs first which frees the most memory: a gradient is used up while it
is still in the caches, instead of lying about until all others have been made too.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable
from dataclasses import dataclass, field

from compiler.ir import Node, Op
from tinyhw.fuse import storage_of


@dataclass(eq=False)
class Task:
    """What will be one kernel or copy: it stores `root`, reading the storage nodes `reads`.

    `root` is a stored node, an ASSIGN or a COPY; `ast` and `buffers` are as in KernelCall.
    """

    root: Node
    reads: list[Node]
    ast: Node | None
    buffers: tuple[Node, ...]
    after: set[Task] = field(default_factory=set)  # tasks that must have run

    @property
    def overwrites(self) -> Node | None:
        """The storage, in the version that an ASSIGN replaces."""
        return self.root.src[0].base if self.root.op is Op.ASSIGN else None


def _data_dependencies(by_root: dict[Node, Task], afters: Iterable[Node]) -> None:
    """Fills in `after` from what each task reads, and from the order of writes in an AFTER."""
    for task in by_root.values():
        task.after = set()
        for leaf in task.reads:
            task.after |= _producers(leaf, by_root)
        version = task.overwrites
        if version is not None:
            task.after |= _producers(version, by_root)
        task.after.discard(task)
    for after in afters:
        effects = [by_root[effect] for effect in after.src[1:]]
        for earlier, later in itertools.pairwise(effects):
            later.after.add(earlier)


def _producers(leaf: Node, by_root: dict[Node, Task]) -> set[Task]:
    """The tasks that make a storage node what it is."""
    found: set[Task] = set()
    todo = [leaf]
    while todo:
        node = todo.pop()
        if node.op is Op.AFTER:
            found.update(by_root[effect] for effect in node.src[1:])
            todo.append(node.src[0].base)
        elif node in by_root:
            found.add(by_root[node])
    return found


def order_tasks(
    tasks: list[Task], afters: Iterable[Node], passing: set[Node]
) -> tuple[list[Task], set[Node]]:
    """The tasks in an order in which each version of storage is read before it is overwritten.

    Where no such order exists (a kernel needs a value from before a write and one that depends
    on that write), the second result names versions that must be copied before the write; the
    order is then that of tasks which read the copies instead. `afters` are the AFTER nodes,
    which say in which order several writes through one version happen; `passing` are BUFFERs
    whose memory is free again after their last reader.
    """
    _data_dependencies({task.root: task for task in tasks}, afters)
    readers: dict[object, list[Task]] = {}
    for task in tasks:
        for leaf in task.reads:
            readers.setdefault(_version(leaf), []).append(task)
    edges = [
        (reader, writer, _version(writer.overwrites))
        for writer in tasks
        if writer.overwrites is not None
        for reader in readers.get(_version(writer.overwrites), ())
        if reader is not writer
    ]
    added = [
        (reader, writer) for reader, writer, _ in edges if reader not in writer.after
    ]
    for reader, writer in added:
        writer.after.add(reader)
    ordered = _topological(tasks, passing)
    if ordered is not None:
        return ordered, set()
    for reader, writer in added:
        writer.after.discard(reader)
    copied: set[object] = set()
    for reader, writer, version in edges:
        if version in copied:
            continue
        if _depends(reader, writer):
            copied.add(version)
        else:
            writer.after.add(reader)
    return [], {leaf for task in tasks for leaf in task.reads if _version(leaf) in copied}


def _version(storage: Node) -> object:
    """What two storage nodes have in common if they are the same contents of one BUFFER."""
    if storage.op is not Op.AFTER:
        return storage
    return (storage_of(storage), storage.src[1:])


def _topological(tasks: list[Task], passing: set[Node]) -> list[Task] | None:
    """An order that respects `after`; None where `after` goes in a circle."""
    missing = {task: len(task.after) for task in tasks}
    followers: dict[Task, list[Task]] = {task: [] for task in tasks}
    readers: dict[Node, int] = {}
    for task in tasks:
        for before in task.after:
            followers[before].append(task)
        for buffer in task.buffers[1:]:
            if buffer in passing:
                readers[buffer] = readers.get(buffer, 0) + 1

    def growth(task: Task) -> int:
        """By how many bytes memory in use grows when `task` runs next."""
        output = task.buffers[0]
        grown = _bytes(output) if output in passing else 0
        return grown - sum(_bytes(b) for b in task.buffers[1:] if readers.get(b) == 1)

    ready = [task for task in tasks if not missing[task]]
    ordered: list[Task] = []
    while ready:
        task = min(ready, key=growth) if len(ready) > 1 else ready[0]
        ready.remove(task)
        ordered.append(task)
        for buffer in task.buffers[1:]:
            if buffer in readers:
                readers[buffer] -= 1
        for follower in followers[task]:
            missing[follower] -= 1
            if not missing[follower]:
                ready.append(follower)
    return ordered if len(ordered) == len(tasks) else None


def _bytes(buffer: Node) -> int:
    return int(buffer.arg.size) * buffer.dtype.itemsize


def _depends(task: Task, on: Task) -> bool:
    """Whether `task` runs after `on`."""
    todo, seen = [task], {task}
    while todo:
        for before in todo.pop().after:
            if before is on:
                return True
            if before not in seen:
                seen.add(before)
                todo.append(before)
    return False
