"""Runs schedules: compiles kernels, gives buffers memory, submits, and updates live objects.

Submitting does not wait: a read of a buffer waits for the Point of the kernel that wrote it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import groupby

import numpy as np

from compiler.ir import Op
from compiler.target import Target
from drivers import Point, Program, Timestamp, Var
from drivers.queue import Argument
from tinyhw import live, storage
from tinyhw.context import DEBUG, GlobalCounters, colored
from tinyhw.device import Device, Runtime
from tinyhw.errors import VariableError
from tinyhw.memory_plan import plan_memory
from tinyhw.prepare import rebuilt, walk
from tinyhw.schedule import CopyCall, Item, KernelCall, Schedule, schedule
from tinyhw.transfer import copy_in, copy_out

# How many commands are handed to a queue at once; its ring has room for more.
BATCH = 256


class Recording:
    """The schedules that ran while it was `active`: what a TinyJit captures."""

    active: Recording | None = None

    def __init__(self) -> None:
        self.schedules: list[Schedule] = []


def realize(*holders: live.Holder) -> None:
    """Computes tensors. Afterwards each one's node is a movement-only view of a BUFFER.

    Everything pending is updated: live tensors that were computed on the way stand on their
    buffers, and graphs that used what was computed read it from there.
    """
    todo = list({id(h): h for h in holders if h.node.base.op is not Op.BUFFER}.values())
    if not todo:
        return
    plan = schedule([(h.node, h.device) for h in todo], target_of)
    run(plan)
    for holder in todo:
        holder.node = plan.stored[holder.node]
        live.register(holder)
    for node, view in plan.stored.items():
        if live.is_base(node):
            live.move(node, view)
    _update_pending(plan)


def target_of(device: str) -> Target:
    """What the compiler must know of a device."""
    return Device.runtime(device).target


def _update_pending(plan: Schedule) -> None:
    """Puts buffers in the place of what was computed, in the graphs of all live objects.

    What depends on no storage stays as it is: a constant is cheaper than a load.
    """
    pending = live.pending()
    if not pending:
        return
    done = {n: v for n, v in plan.stored.items() if n.device is not None}
    order = walk(pending)
    if not any(node in done for node in order):
        return
    for node in order:
        if node not in done:
            done[node] = rebuilt(node, tuple([done[s] for s in node.src])) if node.src else node
    for base in pending:
        if done[base] is not base:
            live.move(base, done[base])


# ---- running ----


def run(plan: Schedule) -> None:
    """Submits every item of a schedule in order."""
    for item in plan.items:  # what does not compile must not leave a schedule half done
        if isinstance(item, KernelCall):
            Device.runtime(item.device).program(item.ast)
    if Recording.active is not None:
        Recording.active.schedules.append(plan)
    _place_temporaries(plan)
    for device, group in groupby(plan.items, device_of):
        if device is None:
            for item in group:
                assert isinstance(item, CopyCall)
                copy_bytes(storage.held(item.destination), storage.held(item.source))
        else:
            calls = [item for item in group if isinstance(item, KernelCall)]
            runtime = Device.runtime(device)
            for start in range(0, len(calls), BATCH):
                _submit(runtime, calls[start : start + BATCH], plan.values)


def device_of(item: Item) -> str | None:
    """The device whose queue runs an item; None for what the host does."""
    return item.device if isinstance(item, KernelCall) else None


def _place_temporaries(plan: Schedule) -> None:
    if not plan.temporaries:
        return
    layout = plan_memory(plan.items, plan.temporaries)
    arenas = {d: Device.runtime(d).device.alloc(n) for d, n in layout.arena_bytes.items()}
    for node, offset in layout.offsets.items():
        size = node.arg.size * node.dtype.itemsize
        storage.place(node, arenas[node.arg.device].view(offset, size))


def copy_bytes(destination: storage.Held, source: storage.Held) -> None:
    """Copies all of a buffer to one on another device.

    The copy comes after everything that both devices have been given so far, and before what
    they are given from now on: what runs on the destination's may still read what was there
    before, and what the source's does next may overwrite it. If the source's copy queue reaches
    the destination the queues wait for each other; else the host waits for both and copies.
    """
    sender = Device.runtime(Device.canonicalize(source.buffer.device))
    receiver = Device.runtime(Device.canonicalize(destination.buffer.device))
    if sender.device.reaches(destination.buffer):
        commands = sender.copy_queue.commands()
        commands.wait(sender.queue.last_point).wait(receiver.queue.last_point)
        point = commands.copy(destination.buffer, source.buffer).submit()
        for runtime in (sender, receiver):
            runtime.queue.commands().wait(point).submit()
        destination.point = point
    else:
        for runtime in (sender, receiver):
            runtime.device.synchronize()
        if Device.is_processor(receiver.name):
            copy_out(source.buffer, np.frombuffer(destination.buffer.cpu_view(), np.uint8))
        else:
            copy_in(destination.buffer, np.frombuffer(source.buffer.cpu_view(), np.uint8))
    if DEBUG >= 2:
        size_bytes = source.buffer.size_bytes
        print(f"copy {source.buffer.device} -> {destination.buffer.device}: {size_bytes} bytes")


def arguments_of(
    program: Program, buffers: Sequence[Argument], values: Mapping[str, int | Var]
) -> list[Argument]:
    """The launch arguments of a kernel: its buffers, then the Variables that it takes."""
    arguments: list[Argument] = list(buffers)
    for param in program.code.params[len(arguments) :]:
        if param.name not in values:
            raise VariableError(
                f"The Variable {param.name} has no value; a shape was made with the Variable "
                "itself.",
                operation="realize",
                remedy=f"Use `{param.name}.bind(value)`.",
            )
        arguments.append(values[param.name])
    return arguments


def _submit(runtime: Runtime, calls: list[KernelCall], values: dict[str, int]) -> None:
    watched = DEBUG >= 2
    stamps = runtime.device.timestamps(2 * len(calls)) if watched else []
    commands = runtime.queue.commands()
    programs: list[Program] = []
    written: list[storage.Held] = []
    for i, call in enumerate(calls):
        program = runtime.program(call.ast)
        memory = [storage.held(node) for node in call.buffers]
        if watched:
            commands.timestamp(stamps[2 * i])
        arguments = arguments_of(program, [m.buffer for m in memory], values)
        commands.exec(program, arguments, origin=call.origin)
        if watched:
            commands.timestamp(stamps[2 * i + 1])
        written.append(memory[0])
        programs.append(program)
        count(program)
    point = commands.submit()
    for held in written:
        held.point = point
    if watched:
        _report(runtime, programs, stamps, point, calls)


def count(program: Program) -> None:
    """Adds one launch to the counters."""
    code = program.code
    GlobalCounters.kernel_count += 1
    GlobalCounters.global_ops += code.operations
    GlobalCounters.global_mem += code.bytes_moved


def _report(
    runtime: Runtime,
    programs: list[Program],
    stamps: list[Timestamp],
    point: Point,
    calls: list[KernelCall],
) -> None:
    """DEBUG=2: one line for each kernel that ran."""
    point.wait()
    number = GlobalCounters.kernel_count - len(programs)
    for i, program in enumerate(programs):
        number += 1
        ns = max(1, stamps[2 * i + 1].value_ns - stamps[2 * i].value_ns)
        GlobalCounters.time_sum_s += ns * 1e-9
        code = program.code
        origin = calls[i].origin
        where = f"  {origin[0].rsplit('/', 1)[-1]}:{origin[1]}" if origin else ""
        print(
            f"{colored(f'*** {runtime.name:<6}', 'green')} {number:5d} {program.name:<40}"
            f" mem {GlobalCounters.mem_used / 1e9:6.3f} GB"
            f" tm {ns / 1e3:10.2f} us /{GlobalCounters.time_sum_s * 1e3:9.2f} ms"
            f" ({code.operations / ns:9.2f} GFLOP/s {code.bytes_moved / ns:8.2f} GB/s){where}"
        )
