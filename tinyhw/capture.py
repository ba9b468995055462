"""What a TinyJit captured, as bound queues: replaying it is one native call for each device.

Buffers that are inputs are Vars of the bound lists. Everything that was computed on the way and
that nobody holds after the call has memory planned over the whole capture; what somebody holds
(outputs, parameters, gradients) stays where it is and is written again by every replay.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from itertools import groupby

from compiler.ir import Node, Op
from drivers import BoundCommands, Buffer, Point, Var
from drivers.queue import Argument
from tinyhw import live, storage
from tinyhw.context import DEBUG, GlobalCounters
from tinyhw.device import Device
from tinyhw.errors import JitError
from tinyhw.memory_plan import buffers_of, plan_memory
from tinyhw.prepare import walk
from tinyhw.realize import Recording, arguments_of, copy_bytes, device_of
from tinyhw.schedule import CopyCall, Item, KernelCall
from tinyhw.variable import Condition


@dataclass
class Segment:
    """Kernels of one device that follow each other.

    `names` are the Vars they take; `written` is the memory they write that others see,
    `written_inputs` are the inputs among it.
    """

    bound: BoundCommands
    names: tuple[str, ...]
    written: list[storage.Held]
    written_inputs: list[str]


@dataclass
class DeviceCopy:
    """A copy between devices; a name stands for an input."""

    destination: storage.Held
    source: storage.Held | str


class Capture:
    """The bound lists of one captured call, and what they touch.

    `inputs` names the BUFFERs that change from call to call. `state` are the other BUFFERs that
    exist outside of the capture, which keeps them; `written` those that it writes, and
    `written_inputs` the names of inputs that it writes. `conditions` are what the Variables'
    values must fulfil.
    """

    def __init__(
        self, recording: Recording, inputs: dict[Node, str], conditions: list[Condition]
    ) -> None:
        self.inputs = inputs
        self.conditions = conditions
        self.variables: dict[str, int] = {}
        self.state: set[Node] = set()
        self.written: set[Node] = set()
        self.written_inputs: set[str] = set()
        self.kernels = self.operations = self.bytes_moved = 0
        self._memory: list[Buffer] = []
        items = [item for plan in recording.schedules for item in plan.items]
        for plan in recording.schedules:
            self._add_values(plan.values)
        fresh = {buffer for plan in recording.schedules for buffer in plan.fresh}
        temporaries = fresh - _still_needed()
        self._classify(items, temporaries)
        self._place(items, temporaries)
        self.steps: list[Segment | DeviceCopy] = []
        for device, group in groupby(items, device_of):
            if device is None:
                self.steps += [self._device_copy(item) for item in group]
            else:
                self.steps.append(self._segment(device, list(group)))

    def _add_values(self, values: dict[str, int]) -> None:
        for name, value in values.items():
            if self.variables.setdefault(name, value) != value:
                raise JitError(
                    f"The Variable {name} has the values {self.variables[name]} and {value} in "
                    "one captured call; a replay has one.",
                    operation="capture",
                )

    def _classify(self, items: list[Item], temporaries: set[Node]) -> None:
        inputs = self.inputs
        for item in items:
            buffers = buffers_of(item)
            self.state.update(b for b in buffers if b not in temporaries and b not in inputs)
            if buffers[0] in inputs:
                self.written_inputs.add(inputs[buffers[0]])
        written = {buffers_of(item)[0] for item in items}
        self.written = self.state & written

    def _place(self, items: list[Item], temporaries: set[Node]) -> None:
        layout = plan_memory(items, temporaries)
        for node in temporaries:  # the captured run's own memory goes before the capture's comes
            storage.release(node)
        for device in layout.arena_bytes:
            opened = Device.runtime(device).device
            opened.synchronize()
            opened.trim()
        arenas = {d: Device.runtime(d).device.alloc(n) for d, n in layout.arena_bytes.items()}
        for node, offset in layout.offsets.items():
            size = node.arg.size * node.dtype.itemsize
            storage.place(node, arenas[node.arg.device].view(offset, size))
        self._memory += arenas.values()

    def _segment(self, device: str, calls: list[Item]) -> Segment:
        runtime = Device.runtime(device)
        commands = runtime.queue.commands()
        inputs = self.inputs
        names: dict[str, None] = {}
        variables = {name: Var(name) for name in self.variables}
        for call in calls:
            assert isinstance(call, KernelCall)
            program = runtime.program(call.ast)
            buffers: list[Argument] = [
                Var(inputs[node]) if node in inputs else storage.held(node).buffer
                for node in call.buffers
            ]
            arguments = arguments_of(program, buffers, variables)
            names.update((a.name, None) for a in arguments if isinstance(a, Var))
            commands.exec(program, arguments, origin=call.origin)
            self.kernels += 1
            self.operations += program.code.operations
            self.bytes_moved += program.code.bytes_moved
        outputs = dict.fromkeys(buffers_of(call)[0] for call in calls)
        return Segment(
            commands.bind(),
            tuple(names),
            [storage.held(node) for node in outputs if node in self.written],
            [inputs[node] for node in outputs if node in inputs],
        )

    def _device_copy(self, item: Item) -> DeviceCopy:
        assert isinstance(item, CopyCall)
        source = self.inputs.get(item.source)
        return DeviceCopy(storage.held(item.destination), source or storage.held(item.source))

    # ---- replaying ----
    def replay(self, inputs: dict[str, storage.Held], variables: dict[str, int]) -> None:
        """Runs everything once more with other inputs; returns before it has finished."""
        values: dict[str, Buffer | int] = {name: held.buffer for name, held in inputs.items()}
        values.update(variables)
        start_ns = time.perf_counter_ns() if DEBUG >= 2 else 0
        points: list[Point] = []
        for step in self.steps:
            if isinstance(step, DeviceCopy):
                source = step.source
                copy_bytes(step.destination, inputs[source] if isinstance(source, str) else source)
                continue
            names = step.names
            needed = values if len(values) == len(names) else {n: values[n] for n in names}
            point = step.bound.replay(**needed)
            points.append(point)
            for held in step.written:
                held.point = point
            for name in step.written_inputs:
                inputs[name].point = point
        counters = GlobalCounters
        counters.kernel_count += self.kernels
        counters.global_ops += self.operations
        counters.global_mem += self.bytes_moved
        if start_ns:
            self._report(points, start_ns)

    def _report(self, points: list[Point], start_ns: int) -> None:
        """DEBUG=2: one line for the whole replay."""
        for point in points:
            point.wait()
        ns = time.perf_counter_ns() - start_ns
        GlobalCounters.time_sum_s += ns * 1e-9
        print(
            f"*** jit    {self.kernels:5d} kernels tm {ns / 1e3:10.2f} us"
            f" ({self.operations / ns:9.2f} GFLOP/s {self.bytes_moved / ns:8.2f} GB/s)"
        )


def _still_needed() -> set[Node]:
    """The BUFFERs that live objects stand on or will read."""
    return {node for node in walk(live.bases()) if node.op is Op.BUFFER}
