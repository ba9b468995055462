"""What a kernel driver keeps once for a process: one object for each System, made at first use."""

from __future__ import annotations

import os
import threading
import weakref
from collections.abc import Callable
from typing import Generic, Protocol, TypeVar

from drivers.system import RealSystem, System

_REAL = RealSystem()


class _Connection(Protocol):
    system: System


Kind = TypeVar("Kind", bound=_Connection)


class OncePerSystem(Generic[Kind]):
    """The process's one connection to a kernel driver through each System.

    It is kept in the System itself, so that both go together. A forked child makes its own: the
    nodes that it has inherited are the parent's.
    """

    def __init__(self, kind: type[Kind], make: Callable[[System], Kind]) -> None:
        self._kind, self._make = kind, make
        self._key = f"_{kind.__name__}"
        self._known: weakref.WeakSet[Kind] = weakref.WeakSet()
        self._lock = threading.Lock()
        os.register_at_fork(after_in_child=self.forget)

    def of(self, system: System | None) -> Kind:
        """The connection through a System (the real one, if none is given)."""
        key = system or _REAL
        with self._lock:
            found = vars(key).get(self._key)
            if not isinstance(found, self._kind):
                found = self._make(key)
                vars(key)[self._key] = found
                self._known.add(found)
            return found

    def forget(self) -> None:
        """In a forked child: whoever asks next gets a connection of its own."""
        self._lock = threading.Lock()
        for each in list(self._known):
            vars(each.system).pop(self._key, None)
        self._known.clear()
