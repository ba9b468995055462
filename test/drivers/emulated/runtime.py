"""AMD's own runtime (ROCR 5.2, libhsa-runtime64) on an emulated board; run by a test.

What it does: agents and memory pools, an AQL queue with barriers, copies by SDMA; with a code
object also its loader, its own blit kernels, and ours. Functions and constants: hsa.h,
hsa_ext_amd.h. Arguments: board, mistake, thunk, runtime, and LLVM's linker if kernels shall run.
"""

from __future__ import annotations

import ctypes
import random
import struct
import subprocess
import sys
import tempfile
import time
from itertools import pairwise
from pathlib import Path
from typing import Any

from autogen import hsa
from compiler.amdgpu import gpu_target
from compiler.build import compile_source
from compiler.code_object import CodeObject
from compiler.compile import compile_kernel
from compiler.dtype import dtypes
from compiler.ir import Node, Op
from drivers.emulated.amd.boards import BOARDS
from drivers.emulated.system import EmulatedSystem
from test.drivers.emulated.stranger import Leader, main, overwrite
from test.drivers.emulated.wrong import WrongSystem

U32, U64, I64, POINTER = ctypes.c_uint32, ctypes.c_uint64, ctypes.c_int64, ctypes.c_void_p

AGENT_INFO_NAME, AGENT_INFO_WAVEFRONT_SIZE = hsa.HSA_AGENT_INFO_NAME, 6
AGENT_INFO_DEVICE, DEVICE_TYPE_GPU = hsa.HSA_AGENT_INFO_DEVICE, 1
AMD_AGENT_INFO_COMPUTE_UNIT_COUNT = 0xA002
POOL_INFO_SEGMENT, POOL_INFO_GLOBAL_FLAGS, POOL_INFO_SIZE = 0, 1, 2
SEGMENT_GLOBAL = 0
KERNARG, FINE, COARSE = 1, 2, 4
SYSTEM_INFO_TIMESTAMP = 2
PROFILE_FULL = 1
SYMBOL_INFO_KERNARG_BYTES, SYMBOL_INFO_GROUP_BYTES, SYMBOL_INFO_KERNEL_OBJECT = 11, 13, 22
GPU_MEMORY_FAULT_EVENT, PAGE_NOT_PRESENT = 0, 1 << 0
WHOLE_SYSTEM = hsa.HSA_FENCE_SCOPE_SYSTEM

QUEUE_PACKETS = 64
SHORT_NS = 100_000_000
CLOCK_SLACK_NS = 1_000_000  # the runtime compares the clocks once in a while
EACH = ctypes.CFUNCTYPE(ctypes.c_int, U64, POINTER)
FAILED = ctypes.CFUNCTYPE(None, ctypes.c_int, POINTER, POINTER)
HAPPENED = ctypes.CFUNCTYPE(ctypes.c_int, POINTER, POINTER)


def expect(what: str, found: Any, wanted: Any) -> None:
    if found != wanted:
        raise RuntimeError(f"{what}: {found!r}, not {wanted!r}")


def expect_times(started: int, times: Any, ended: int) -> None:
    """The GPU's times lie within the host's."""
    if not started - CLOCK_SLACK_NS <= times[0] < times[1] <= ended + CLOCK_SLACK_NS:
        raise RuntimeError(f"times: {list(times)} are not within {started} and {ended}")


class Runtime:
    """The runtime between hsa_init and hsa_shut_down."""

    def __init__(self, leader: Leader, path: str, thunk: str, wait_ns: int) -> None:
        self.wait_ns = wait_ns
        self.library = ctypes.CDLL(path)
        overwrite(thunk, leader.functions)
        self.library.hsa_signal_wait_scacquire.restype = I64
        self.library.hsa_signal_load_scacquire.restype = I64
        for name in ("add_write_index_relaxed", "load_read_index_scacquire"):
            getattr(self.library, f"hsa_queue_{name}").restype = U64
        self.call("init")
        agents = self.each("iterate_agents")
        gpus = [a for a in agents if self.info("agent_get_info", a, AGENT_INFO_DEVICE) == 1]
        expect("agents", (len(agents), len(gpus)), (2, 1))
        (self.gpu,) = gpus
        (self.processor,) = set(agents) - set(gpus)
        self.signals: list[int] = []
        self.host_addresses: set[int] = set()
        self.vram = self.pool(self.gpu, COARSE)
        self.host = self.pool(self.processor, FINE)
        self.kernarg = self.pool(self.processor, FINE | KERNARG)

    def call(self, name: str, *arguments: Any) -> None:
        status = getattr(self.library, f"hsa_{name}")(*arguments)
        if status:
            raise RuntimeError(f"hsa_{name} returned {status:#x}")

    def each(self, name: str, *arguments: Any) -> list[int]:
        found: list[int] = []
        self.call(name, *arguments, EACH(lambda one, _: found.append(one) or 0), None)
        return found

    def info(self, name: str, handle: int, attribute: int, kind: Any = U32) -> Any:
        value = kind()
        self.call(name, U64(handle), attribute, ctypes.byref(value))
        return value.value

    def pool(self, agent: int, flags: int) -> int:
        name = "amd_memory_pool_get_info"
        for pool in self.each("amd_agent_iterate_memory_pools", U64(agent)):
            if self.info(name, pool, POOL_INFO_SEGMENT) != SEGMENT_GLOBAL:
                continue
            if self.info(name, pool, POOL_INFO_GLOBAL_FLAGS) == flags:
                return pool
        raise RuntimeError(f"no memory pool with flags {flags}")

    def alloc(self, pool: int, size_bytes: int) -> int:
        address = POINTER()
        self.call("amd_memory_pool_allocate", U64(pool), U64(size_bytes), 0,
                  ctypes.byref(address))
        both = (U64 * 2)(self.processor, self.gpu)
        self.call("amd_agents_allow_access", 2, both, None, address)
        return address.value or 0

    def free(self, *addresses: int) -> None:
        for address in addresses:
            self.call("amd_memory_pool_free", POINTER(address))

    def signal(self, value: int = 1) -> int:
        signal = U64()
        self.call("signal_create", I64(value), 0, None, ctypes.byref(signal))
        self.signals.append(signal.value)
        return signal.value

    def wait(self, signal: int, timeout_ns: int = 0) -> int:
        """Waits until a signal is 0; its value."""
        value: int = self.library.hsa_signal_wait_scacquire(
            U64(signal), hsa.HSA_SIGNAL_CONDITION_EQ, I64(0), U64(timeout_ns or self.wait_ns), 0
        )
        return value

    def copy(self, to: int, source: int, size_bytes: int, after: int = 0) -> int:
        """Copies with a signal, which is returned."""
        done, dependencies = self.signal(), (U64 * 1)(after)
        on_host = {True: self.processor, False: self.gpu}
        self.call(
            "amd_memory_async_copy", POINTER(to), U64(on_host[to in self.host_addresses]),
            POINTER(source), U64(on_host[source in self.host_addresses]), U64(size_bytes),
            int(bool(after)), dependencies if after else None, U64(done),
        )
        return done

    def now(self) -> int:
        value = U64()
        self.call("system_get_info", SYSTEM_INFO_TIMESTAMP, ctypes.byref(value))
        return value.value

    def shut_down(self) -> None:
        for signal in self.signals:
            self.call("signal_destroy", U64(signal))
        self.call("shut_down")


class Queue:
    """An AQL queue."""

    def __init__(self, runtime: Runtime) -> None:
        self.runtime = runtime
        self.errors: list[int] = []
        self._failed = FAILED(lambda status, *_: self.errors.append(status))
        place = POINTER()
        nothing = 0xFFFFFFFF
        runtime.call("queue_create", U64(runtime.gpu), QUEUE_PACKETS, hsa.HSA_QUEUE_TYPE_MULTI,
                     self._failed, None, nothing, nothing, ctypes.byref(place))
        self.place = place
        self.queue = hsa.struct_hsa_queue_s.from_address(place.value or 0)
        expect("size", self.queue.size, QUEUE_PACKETS)

    def submit(self, packet: Any, kind: int) -> None:
        """Puts a packet into the next slot, its header last, and rings the doorbell."""
        library = self.runtime.library
        number = library.hsa_queue_add_write_index_relaxed(self.place, U64(1))
        slot = self.queue.base_address + number % self.queue.size * ctypes.sizeof(packet)
        packet.header = (
            kind | 1 << hsa.HSA_PACKET_HEADER_BARRIER
            | WHOLE_SYSTEM << hsa.HSA_PACKET_HEADER_ACQUIRE_FENCE_SCOPE
            | WHOLE_SYSTEM << hsa.HSA_PACKET_HEADER_RELEASE_FENCE_SCOPE
        )
        content = bytes(packet)
        ctypes.memmove(slot + 4, content[4:], len(content) - 4)
        U32.from_address(slot).value = int.from_bytes(content[:4], "little")
        library.hsa_signal_store_screlease(self.queue.doorbell_signal, I64(number))

    def read_index(self) -> int:
        number: int = self.runtime.library.hsa_queue_load_read_index_scacquire(self.place)
        return number

    def barrier(self, done: int = 0, after: int = 0) -> None:
        packet = hsa.struct_hsa_barrier_and_packet_s()
        packet.dep_signal[0].handle, packet.completion_signal.handle = after, done
        self.submit(packet, hsa.HSA_PACKET_TYPE_BARRIER_AND)

    def dispatch(self, kernel: Kernel, arguments: list[int]) -> int:
        """Runs a kernel; its completion signal."""
        runtime, packet = self.runtime, hsa.struct_hsa_kernel_dispatch_packet_s()
        expect("argument bytes", kernel.kernarg_bytes, 8 * len(arguments))
        memory = runtime.alloc(runtime.kernarg, kernel.kernarg_bytes)
        (U64 * len(arguments)).from_address(memory)[:] = arguments
        packet.setup = 3
        for axis, blocks, threads in zip("xyz", kernel.code.grid, kernel.code.block, strict=True):
            setattr(packet, f"workgroup_size_{axis}", threads)
            setattr(packet, f"grid_size_{axis}", blocks * threads)
        packet.group_segment_size = kernel.group_bytes
        packet.kernel_object, packet.kernarg_address = kernel.object, memory
        packet.completion_signal.handle = done = runtime.signal()
        self.submit(packet, hsa.HSA_PACKET_TYPE_KERNEL_DISPATCH)
        return done

    def destroy(self) -> None:
        self.runtime.call("queue_destroy", self.place)


class Kernel:
    """A kernel of a loaded executable."""

    def __init__(self, runtime: Runtime, executable: int, code: CodeObject) -> None:
        self.code = code
        symbol, agent = U64(), U64(runtime.gpu)
        name = f"{code.name}.kd".encode()
        runtime.call("executable_get_symbol_by_name", U64(executable), name,
                     ctypes.byref(agent), ctypes.byref(symbol))

        def info(attribute: int, kind: Any = U32) -> int:
            value: int = runtime.info("executable_symbol_get_info", symbol.value, attribute, kind)
            return value

        self.object = info(SYMBOL_INFO_KERNEL_OBJECT, U64)
        self.kernarg_bytes = info(SYMBOL_INFO_KERNARG_BYTES)
        self.group_bytes = info(SYMBOL_INFO_GROUP_BYTES)
        expect("local memory", self.group_bytes, code.local_bytes)


def agents(runtime: Runtime, board: str) -> None:
    """The agent is the board that it is."""
    row = BOARDS[board]
    name = runtime.info("agent_get_info", runtime.gpu, AGENT_INFO_NAME, ctypes.c_char * 64)
    expect("name", name, board.encode())
    for attribute, wanted in (
        (AGENT_INFO_WAVEFRONT_SIZE, row.wave_front_size),
        (AMD_AGENT_INFO_COMPUTE_UNIT_COUNT, row.cu_count),
    ):
        expect(f"attribute {attribute:#x}",
               runtime.info("agent_get_info", runtime.gpu, attribute), wanted)
    size = runtime.info("amd_memory_pool_get_info", runtime.vram, POOL_INFO_SIZE, U64)
    expect("VRAM", size, row.vram_bytes)


def barriers(runtime: Runtime, queue: Queue) -> None:
    """Barrier packets, thrice round the ring; one that waits for the program."""
    rounds = 3
    for _ in range(2 * rounds):
        done = runtime.signal(QUEUE_PACKETS // 2)
        for _ in range(QUEUE_PACKETS // 2):
            queue.barrier(done)
        expect("completion signal", runtime.wait(done), 0)
    gate, done = runtime.signal(), runtime.signal()
    queue.barrier(done, after=gate)
    expect("a barrier that waits", runtime.wait(done, SHORT_NS), 1)
    runtime.library.hsa_signal_store_screlease(U64(gate), I64(0))
    expect("a barrier whose signal came", runtime.wait(done), 0)
    deadline = time.monotonic() + runtime.wait_ns / 1e9  # it moves behind the completion
    while (read := queue.read_index()) <= rounds * QUEUE_PACKETS and time.monotonic() < deadline:
        time.sleep(0.001)
    expect("read index", read, rounds * QUEUE_PACKETS + 1)


def copies(runtime: Runtime, within: bool) -> None:
    """To the GPU and back, each after the other's signal; `within` it a kernel copies."""
    size = (1 << 20) + 13
    content = random.Random(1).randbytes(size)
    source, target = runtime.alloc(runtime.host, size), runtime.alloc(runtime.host, size)
    places = [runtime.alloc(runtime.vram, size) for _ in range(3 if within else 1)]
    runtime.host_addresses = {source, target}
    ctypes.memmove(source, content, size)
    for address in (target, *places):
        ctypes.memset(address, 0, size)
    way = [source, *places, target]
    runtime.call("amd_profiling_async_copy_enable", ctypes.c_bool(True))
    started, done = runtime.now(), 0
    for one, following in pairwise(way):
        done = runtime.copy(following, one, size, after=done)
    expect("copies", runtime.wait(done), 0)
    expect("the copy", ctypes.string_at(target, size) == content, True)
    if within:  # neither end at a multiple of the other's: another kernel
        shifted = size - 8
        done = runtime.copy(places[2] + 5, places[0] + 3, shifted)
        expect("a shifted copy", runtime.wait(done), 0)
        expect("the shifted copy", ctypes.string_at(places[2] + 5, shifted) == content[3:-5], True)
    expect("the copy, seen by the processor", ctypes.string_at(places[0], size) == content, True)
    times = (U64 * 2)()
    runtime.call("amd_profiling_get_async_copy_time", U64(done), times)
    expect_times(started, times, runtime.now())
    runtime.free(*way)


def compiled(board: str, linker: str, rows: int, columns: int) -> tuple[bytes, list[CodeObject]]:
    """A code object with two kernels of our compiler: x * x, and the sum of each row."""
    count, target = rows * columns, gpu_target(board)
    values = Node(Op.PARAM, dtypes.float32, (), (1, count))
    results = [Node(Op.PARAM, dtypes.float32, (), (0, size)) for size in (count, rows)]
    matrix = values.reshape((rows, columns))
    codes = [
        compile_kernel(results[0].assign(values.alu(Op.MUL, values)), target),
        compile_kernel(
            results[1].reshape((rows, 1)).assign(matrix.reduce(Op.ADD, (1,))), target
        ),
    ]
    with tempfile.TemporaryDirectory() as folder:
        objects = [Path(folder, f"{code.name}.o") for code in codes]
        for path, code in zip(objects, codes, strict=True):
            path.write_bytes(compile_source(code.source, target))
        linked = Path(folder, "linked")
        subprocess.run([linker, "-shared", *objects, "-o", linked], check=True)
        return linked.read_bytes(), codes


def load(runtime: Runtime, content: bytes) -> int:
    """The runtime's loader, which copies code with a kernel of its own."""
    reader, executable = U64(), U64()
    runtime.call("code_object_reader_create_from_memory", content, U64(len(content)),
                 ctypes.byref(reader))
    runtime.call("executable_create_alt", PROFILE_FULL, 0, None, ctypes.byref(executable))
    runtime.call("executable_load_agent_code_object", executable, U64(runtime.gpu), reader, None,
                 None)
    runtime.call("executable_freeze", executable, None)
    return executable.value


def kernels(runtime: Runtime, queue: Queue, board: str, linker: str) -> None:
    """Its blit kernels, and two of ours: values, local memory, times; then one that faults."""
    rows, columns = 32, 1024
    count = rows * columns
    content, (square, row_sum) = compiled(board, linker, rows, columns)
    executable = load(runtime, content)
    numbers = random.Random(2)
    values = [float(numbers.randrange(-99, 99)) for _ in range(count)]
    given = runtime.alloc(runtime.vram, 4 * count)
    products = runtime.alloc(runtime.vram, 4 * count)
    sums = runtime.alloc(runtime.vram, 4 * rows)
    (ctypes.c_float * count).from_address(given)[:] = values
    runtime.call("amd_memory_fill", POINTER(products), 0x7FC00000, U64(count))
    expect("the fill", set((U32 * count).from_address(products)), {0x7FC00000})

    runtime.call("amd_profiling_set_profiler_enabled", queue.place, 1)
    started = runtime.now()
    done = queue.dispatch(Kernel(runtime, executable, square), [products, given])
    expect("completion of square", runtime.wait(done), 0)
    ended = runtime.now()
    expect("squares", list((ctypes.c_float * count).from_address(products)),
           [value * value for value in values])
    times = (U64 * 2)()
    runtime.call("amd_profiling_get_dispatch_time", U64(runtime.gpu), U64(done), times)
    expect_times(started, times, ended)

    done = queue.dispatch(Kernel(runtime, executable, row_sum), [sums, given])
    expect("completion of row_sum", runtime.wait(done), 0)
    expect("sums", list((ctypes.c_float * rows).from_address(sums)),
           [sum(values[columns * row : columns * (row + 1)]) for row in range(rows)])
    expect("errors of the queue", queue.errors, [])
    fault(runtime, queue, Kernel(runtime, executable, square), products)


def fault(runtime: Runtime, queue: Queue, kernel: Kernel, target: int) -> None:
    """A kernel that reads what is not mapped: the runtime hears of the page."""
    events: list[tuple[int, int, int, int]] = []
    heard = runtime.signal()

    def happened(event: int, _: Any) -> int:
        kind, agent, address, reason = struct.unpack("<I4xQQI", ctypes.string_at(event, 28))
        events.append((kind, agent, address, reason))
        runtime.library.hsa_signal_store_screlease(U64(heard), I64(0))
        return 0

    handler = HAPPENED(happened)
    runtime.call("amd_register_system_event_handler", handler, None)
    nothing = 0x500000000000
    queue.dispatch(kernel, [target, nothing])
    expect("fault heard", runtime.wait(heard), 0)
    expect("fault", events, [(GPU_MEMORY_FAULT_EVENT, runtime.gpu, nothing, PAGE_NOT_PRESENT)])


def task(system: EmulatedSystem, leader: Leader) -> None:
    board, mistake, thunk, path, linker = sys.argv[2:7]
    # Kernels may have to be translated first; a mistake that makes nothing come is seen sooner.
    runtime = Runtime(leader, path, thunk, 10**9 * (1 if mistake and not linker else 20))
    agents(runtime, board)
    queue = Queue(runtime)
    barriers(runtime, queue)
    copies(runtime, within=bool(linker))
    expect("errors of the queue", queue.errors, [])
    if linker:
        kernels(runtime, queue, board, linker)
        return  # the device is lost
    queue.destroy()
    runtime.shut_down()


if __name__ == "__main__":
    main(task, WrongSystem(*sys.argv[2:4]))
