"""Which live objects (Tensors) stand on which node: what realisation updates, and who aliases whom.

An object registers each time its `node` is set. The registry keeps no object alive: an entry
goes when its object does. It is indexed by `node.base`, what is left when movement ops are
taken off, so that finding the aliases of a buffer costs as much as there are of them.
"""

from __future__ import annotations

import weakref
from typing import Protocol

from compiler.ir import Node, Op


class Holder(Protocol):
    """An object with a node: a Tensor."""

    node: Node

    @property
    def device(self) -> str:
        """Where it is, or is to be computed."""


class _Entry(weakref.ref["Holder"]):
    """A weak reference to an object, under the base that its node had when it registered."""

    __slots__ = ("base", "key")
    base: Node
    key: int


_entries: dict[int, _Entry] = {}
_by_base: dict[Node, dict[int, _Entry]] = {}
_pending: set[Node] = set()  # the bases that are not buffers: still to be computed


class _Changes:
    """Counts the changes of the set of pending bases, for those who cache what they saw."""

    count = 0


def register(holder: Holder) -> None:
    """Notes that `holder` now stands on `holder.node`; call it after every setting of the node."""
    base = holder.node.base
    key = id(holder)
    old = _entries.get(key)
    if old is not None:
        if old.base is base:
            return
        _unlink(old)
    entry = _Entry(holder, _forget)
    entry.base, entry.key = base, key
    _entries[key] = entry
    group = _by_base.get(base)
    if group is None:
        _by_base[base] = {key: entry}
        if base.op is not Op.BUFFER:
            _pending.add(base)
            _Changes.count += 1
    else:
        group[key] = entry


def aliases(base: Node) -> list[Holder]:
    """The live objects whose node is `base` or a movement-only view of it."""
    group = _by_base.get(base)
    if not group:
        return []
    found = [entry() for entry in list(group.values())]
    return [holder for holder in found if holder is not None]


def device_of(base: Node) -> str:
    """The device on which the objects that stand on `base` want it computed."""
    return base.device or aliases(base)[0].device


def is_base(node: Node) -> bool:
    """Whether some live object is `node` or a movement-only view of it."""
    return node in _by_base


def holders() -> list[Holder]:
    """Every live object, the oldest first."""
    found = [entry() for entry in list(_entries.values())]
    return [holder for holder in found if holder is not None]


def bases() -> list[Node]:
    """What all live objects stand on."""
    return list(_by_base)


def pending() -> list[Node]:
    """The bases of live objects that are not buffers, so still to be computed."""
    return list(_pending)


def pending_version() -> int:
    """A number that grows whenever a new pending base appears."""
    return _Changes.count


def move(base: Node, new: Node) -> None:
    """Lets every object on `base` stand on `new` instead, its movement ops kept."""
    for holder in aliases(base):
        holder.node = rebase(holder.node, base, new)
        register(holder)


def rebase(node: Node, base: Node, new: Node) -> Node:
    """The movement-only view `node` of `base`, as a view of `new`, which has base's shape."""
    if node is base:
        return new
    moves = []
    while node is not base:
        moves.append(node)
        node = node.src[0]
    for moved in reversed(moves):
        new = new.reshape(moved.arg) if moved.op is Op.RESHAPE else moved.with_src((new,))
    return new


def _unlink(entry: _Entry) -> None:
    group = _by_base.get(entry.base)
    if group is not None and group.get(entry.key) is entry:
        del group[entry.key]
        if not group:
            del _by_base[entry.base]
            _pending.discard(entry.base)


def _forget(entry: weakref.ref[Holder]) -> None:
    """Runs when an object has gone."""
    assert isinstance(entry, _Entry)
    _unlink(entry)
    if _entries.get(entry.key) is entry:
        del _entries[entry.key]
