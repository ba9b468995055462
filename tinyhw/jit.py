"""TinyJit: a function's kernels, captured once and replayed as a bound queue.

    @TinyJit
    def step(x: Tensor) -> Tensor:
        return (x @ weight).relu().realize()

The first call runs the function, the second runs and captures it, every later one replays the
captured kernels without running the function: a few microseconds, whatever it does. So

* inputs are the Tensors, and the bound Variables, among the arguments (in lists, tuples and
  dicts too). Only they may change from call to call, and only in their values;
* the result is the same Tensors each time, overwritten by the next call: `clone()` one to keep
  it. Values that the function makes of Python data stay those of the captured call;
* what the function assigns to (parameters, statistics, random states) is assigned to again by
  every replay; anything else that it does in Python happens only in the first two calls.

Where a replay would give wrong results, JitError says so.
"""

from __future__ import annotations

import functools
import gc
import weakref
from collections.abc import Callable
from typing import Any, Generic, ParamSpec, TypeVar, overload

from compiler.ir import Node, Op
from tinyhw import live, storage
from tinyhw.capture import Capture
from tinyhw.context import JIT
from tinyhw.errors import JitError
from tinyhw.fuse import storage_of
from tinyhw.jit_arguments import (
    Arguments,
    Given,
    Input,
    Output,
    as_input,
    difference,
    same,
    tensors_in,
)
from tinyhw.prepare import walk
from tinyhw.realize import Recording, realize
from tinyhw.tensor import Tensor
from tinyhw.variable import Condition

P = ParamSpec("P")
R = TypeVar("R")


class TinyJit(Generic[P, R]):
    """A function whose second call is captured and whose later calls replay that."""

    def __init__(self, function: Callable[P, R]) -> None:
        functools.update_wrapper(self, function)
        self.function = function
        self._of_object: weakref.WeakKeyDictionary[Any, TinyJit[..., R]]
        self._of_object = weakref.WeakKeyDictionary()
        self.reset()

    def reset(self) -> None:
        """Forgets the capture; the next two calls run the function again."""
        self.calls = 0
        self._capture: Capture | None = None
        self._inputs: list[Input] = []
        self._fixed: list[Any] = []
        self._result: Any = None
        self._outputs: list[Output] = []
        self._seen_pending = -1
        for jit in self._of_object.values():
            jit.reset()

    @property
    def captured(self) -> bool:
        """Whether the next call replays."""
        return self._capture is not None

    @overload
    def __get__(self, instance: None, owner: type) -> TinyJit[P, R]: ...
    @overload
    def __get__(self, instance: object, owner: type) -> TinyJit[..., R]: ...
    def __get__(self, instance: object | None, owner: type) -> TinyJit[P, R] | TinyJit[..., R]:
        """As a method: every object has a capture of its own."""
        if instance is None:
            return self
        found = self._of_object.get(instance)
        if found is None:
            found = self._of_object[instance] = TinyJit(_method(self.function, instance))
        return found

    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> R:
        """Runs, captures or replays; see the module's text."""
        if Recording.active is not None:  # what another one captures is part of that
            return self.function(*args, **kwargs)
        if self._capture is not None:
            return self._replay(self._capture, args, kwargs)
        if not JIT:
            return self.function(*args, **kwargs)
        self.calls += 1
        if self.calls > 1:
            return self._capture_call(args, kwargs)
        result = self.function(*args, **kwargs)
        realize(*tensors_in(result))
        return result

    @property
    def _name(self) -> str:
        return str(getattr(self.function, "__name__", repr(self.function)))

    # ---- capturing ----
    def _capture_call(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> R:
        arguments = Arguments(args, kwargs)
        arguments.check_fixed()
        given = [as_input(tensor) for tensor in arguments.tensors]
        inputs = [
            Input.of(each, f"input{i}", where)
            for i, (each, where) in enumerate(zip(given, arguments.paths(), strict=True))
        ]
        names: dict[Node, str] = {}
        for each, known in zip(given, inputs, strict=True):
            if each.node.base in names:
                raise self._given_twice(known)
            names[each.node.base] = known.name
        _finish_writes()
        recording = Recording()
        conditions: list[Condition] = []
        call = arguments.replaced([each.tensor for each in given])
        result = self._record(recording, conditions, *call)
        outputs = tensors_in(result)
        self._check_recording(recording, outputs, names)
        gc.collect()  # Tensors in reference cycles would keep memory that no replay needs
        capture = Capture(recording, names, list(dict.fromkeys(conditions)))
        restored = [Output.of(tensor) for tensor in outputs]
        self._check_values(capture, restored, arguments, given)
        self._check_written(capture, arguments, given, inputs)
        self._inputs, self._fixed, self._result = inputs, arguments.fixed, result
        self._outputs = restored
        self._seen_pending = -1
        self._capture = capture
        return result

    def _record(
        self,
        recording: Recording,
        conditions: list[Condition],
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
    ) -> R:
        Recording.active, storage.ReadGuard.forbidden = recording, True
        Condition.noted = conditions
        try:
            result = self.function(*args, **kwargs)
            realize(*tensors_in(result))
            _finish_writes()
        finally:
            Recording.active, storage.ReadGuard.forbidden = None, False
            Condition.noted = None
        return result

    def _check_recording(
        self, recording: Recording, outputs: list[Tensor], names: dict[Node, str]
    ) -> None:
        if not any(plan.items for plan in recording.schedules):
            raise JitError(
                f"{self._name} ran no kernel while it was captured: there is nothing to replay.",
                operation="capture",
                remedy="Compute with Tensors in it; what was computed before it is not part of it.",
            )
        if any(tensor.node.base in names for tensor in outputs):
            raise JitError(
                f"{self._name} returns one of its inputs, which a replay cannot replace.",
                operation="capture",
                remedy="Return `clone()` of it.",
            )

    def _check_values(
        self, capture: Capture, outputs: list[Output], arguments: Arguments, given: list[Given]
    ) -> None:
        """Every Variable that a replay needs is one of the arguments'."""
        passed = set(arguments.variables).union(*(each.values for each in given))
        used = dict(capture.variables)
        for condition in capture.conditions:
            used.update(condition.values)
        for output in outputs:
            used.update(output.values)
        for name, value in used.items():
            if name not in passed:
                raise JitError(
                    f"The Variable {name} is bound inside of {self._name}, so that every replay "
                    f"would use {value}.",
                    operation="capture",
                    remedy="Pass the bound Variable as an argument.",
                )

    def _check_written(
        self, capture: Capture, arguments: Arguments, given: list[Given], inputs: list[Input]
    ) -> None:
        for tensor, each, known in zip(arguments.tensors, given, inputs, strict=True):
            if each.tensor is not tensor and known.name in capture.written_inputs:
                raise JitError(
                    f"{known.where} of {self._name} is assigned to, but is only a part of its "
                    "storage, which is copied for the capture.",
                    operation="capture",
                    remedy="Pass the whole Tensor and take the part in the function.",
                )

    # ---- replaying ----
    def _replay(self, capture: Capture, args: tuple[Any, ...], kwargs: dict[str, Any]) -> R:
        arguments = Arguments(args, kwargs)
        if not same(arguments.fixed, self._fixed):
            what = difference(arguments.fixed, self._fixed)
            raise JitError(
                f"{self._name} cannot be replayed: {what}.",
                operation="replay",
                remedy="Only Tensors and bound Variables may change; reset() it, or use another.",
            )
        variables = arguments.variables
        held: dict[str, storage.Held] = {}
        for known, tensor in zip(self._inputs, arguments.tensors, strict=True):
            held[known.name] = storage.held(known.buffer(tensor, variables))
        if len(held) > 1 and len({id(each) for each in held.values()}) < len(held):
            seen: set[int] = set()
            for known in self._inputs:
                if id(held[known.name]) in seen:
                    raise self._given_twice(known)
                seen.add(id(held[known.name]))
        if live.pending_version() != self._seen_pending or capture.written_inputs:
            self._settle(capture, arguments)
        for condition in capture.conditions:
            condition.check(variables)
        capture.replay(held, {name: variables[name] for name in capture.variables})
        for output in self._outputs:
            output.restore(variables)
        result: R = self._result
        return result

    def _settle(self, capture: Capture, arguments: Arguments) -> None:
        """Computes what is pending and reads what the replay writes, or writes what it reads."""
        written = capture.written
        if capture.written_inputs:
            written = written.union(tensor.node.base for tensor in arguments.tensors)
        touches: dict[Node, bool] = {}
        pending = live.pending()
        for node in walk(pending):
            touches[node] = (
                node in written
                or (node.op is Op.ASSIGN and storage_of(node.src[0]) in capture.state)
                or any([touches[s] for s in node.src])
            )
        realize(*(live.aliases(base)[0] for base in pending if touches[base]))
        self._seen_pending = live.pending_version()

    def _given_twice(self, known: Input) -> JitError:
        return JitError(
            f"{known.where} of {self._name} has the same memory as another argument; a replay "
            "keeps its inputs apart.",
            operation="call",
            remedy="Pass `clone()` of one of them.",
        )


def _finish_writes() -> None:
    """Realizes every assignment that is pending."""
    writes = [base for base in live.pending() if base.op is Op.AFTER]
    realize(*(live.aliases(base)[0] for base in writes))


def _method(function: Callable[..., R], instance: object) -> Callable[..., R]:
    """The function bound to an object, which it does not keep."""
    reference = weakref.ref(instance)

    @functools.wraps(function)
    def call(*args: Any, **kwargs: Any) -> R:
        return function(reference(), *args, **kwargs)

    return call
