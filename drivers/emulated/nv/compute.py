"""The compute class: state, launches by QMD, inline data, report semaphores (clcbc0.h)."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from autogen import nv_555 as nv
from autogen import nv_qmd
from drivers.emulated.engine import BadPacket
from drivers.emulated.grids import Ranges, report
from drivers.emulated.memory import EXECUTE, READ, WRITE
from drivers.emulated.nv import semaphore
from drivers.emulated.nv.methods import class_methods
from drivers.emulated.nv.qmd import LAYOUTS, Qmd, Release, read_qmd
from drivers.emulated.simt import launch as simt
from drivers.emulated.simt.instruction import TranslationFailed, UnknownInstruction

if TYPE_CHECKING:
    from drivers.emulated.nv.channel import Channel

THREAD_LIMIT = 1024
WARP = 32
CONFIG_BYTES = 4096  # the unit of *_SM_CONFIG_SHARED_MEM_SIZE, which counts from 1
DEPENDENT_LIMIT = 1 << 16  # a chain of QMDs that is longer has no end
REDUCTIONS = {
    number: semaphore.operation_name(name)
    for name, number in nv_qmd.VALUES["QMDV03_00"]["RELEASE0_REDUCTION_OP"].items()
}
QMD_SCHEDULES = ("SCHEDULE", "INVALIDATE_COPY_SCHEDULE", "PREFETCH_SCHEDULE",
                 "INVALIDATE_PREFETCH_COPY_SCHEDULE")
LAUNCHES = 1024  # that an object remembers
LAUNCH_STATE = (
    "SET_SHADER_SHARED_MEMORY_WINDOW_A", "SET_SHADER_SHARED_MEMORY_WINDOW_B",
    "SET_SHADER_LOCAL_MEMORY_WINDOW_A", "SET_SHADER_LOCAL_MEMORY_WINDOW_B",
    "SET_SHADER_LOCAL_MEMORY_NON_THROTTLED_A", "SET_SHADER_LOCAL_MEMORY_NON_THROTTLED_B",
    "SET_SHADER_LOCAL_MEMORY_A", "SET_SHADER_LOCAL_MEMORY_B",
)
QMD_PREPARES = ("NOP", "INVALIDATE", "PREFETCH")


class ComputeObject:
    """A compute class on a subchannel. `held` are grids that methods have begun."""

    error_code = nv.ROBUST_CHANNEL_GR_EXCEPTION

    def __init__(self, channel: Channel, number: int) -> None:
        self.channel, self.class_number = channel, number
        self.methods = class_methods(channel.gpu.board.compute_methods, number)
        self.state: dict[str, int] = {}
        self.held: list[Qmd] = []
        self.inline = bytearray()
        self.inline_left = 0
        self.ranges = Ranges(channel.memory.table)
        self.launches: dict[tuple[object, ...], simt.Launch] = {}
        self.handlers: dict[str, Callable[[int], None]] = {
            "WAIT_FOR_IDLE": lambda value: self.finish(),
            "LAUNCH_DMA": self._begin_inline, "LOAD_INLINE_DATA": self._load_inline,
            "SEND_SIGNALING_PCAS_B": self._old_pcas, "SEND_SIGNALING_PCAS2_B": self._pcas,
            "SET_REPORT_SEMAPHORE_D": self._report,
        }

    def write(self, offset: int, value: int) -> None:
        """One method."""
        method = self.methods.find(offset, value)
        if method.name == "LOAD_INLINE_QMD_DATA":
            address = self._wide("SET_INLINE_QMD_ADDRESS_A", "SET_INLINE_QMD_ADDRESS_B") << 8
            self.channel.memory.store(address + 4 * method.number, value, 4)
            return
        self.state[method.name] = value
        handler = self.handlers.get(method.name)
        if handler is not None:
            handler(value)

    def _wide(self, high: str, low: str) -> int:
        return self.state.get(high, 0) << 32 | self.state.get(low, 0)

    # Inline data: what stands in the pushbuffer goes to memory.

    def _begin_inline(self, value: int) -> None:
        if self.methods.named("LAUNCH_DMA", "DST_MEMORY_LAYOUT", value) != "PITCH":
            raise BadPacket("LAUNCH_DMA: block-linear memory is not modelled")
        if self.methods.named("LAUNCH_DMA", "COMPLETION_TYPE", value) == "RELEASE_SEMAPHORE":
            raise BadPacket("LAUNCH_DMA: its own semaphore is not modelled")
        if self.state.get("LINE_COUNT", 0) != 1:
            raise BadPacket(f"LAUNCH_DMA: {self.state.get('LINE_COUNT', 0)} lines; 1 is modelled")
        self.inline, self.inline_left = bytearray(), self.state.get("LINE_LENGTH_IN", 0)

    def _load_inline(self, value: int) -> None:
        if self.inline_left <= 0:
            raise BadPacket("LOAD_INLINE_DATA: no data is expected")
        self.inline += value.to_bytes(4, "little")[: self.inline_left]
        self.inline_left -= 4
        if self.inline_left <= 0:
            self.channel.memory.write(
                self._wide("OFFSET_OUT_UPPER", "OFFSET_OUT"), bytes(self.inline)
            )
            self.channel.native.notify()

    def _report(self, value: int) -> None:
        """A semaphore that is released when everything before it is done."""
        self.finish()
        get = self.methods.get
        operation = self.methods.named("SET_REPORT_SEMAPHORE_D", "OPERATION", value)
        if operation != "RELEASE":
            raise BadPacket(f"SET_REPORT_SEMAPHORE_D: operation {operation} is not modelled")
        self.channel.schedule.step(self.channel, "SET_REPORT_SEMAPHORE_D")
        address = self._wide("SET_REPORT_SEMAPHORE_A", "SET_REPORT_SEMAPHORE_B")
        payload = self.state.get("SET_REPORT_SEMAPHORE_C", 0)
        if get("SET_REPORT_SEMAPHORE_D", "REDUCTION_ENABLE", value):
            name = self.methods.named("SET_REPORT_SEMAPHORE_D", "REDUCTION_OP", value)
            signed = get("SET_REPORT_SEMAPHORE_D", "REDUCTION_FORMAT", value) == 1
            operation = semaphore.operation_name(name)
            semaphore.reduce(self.channel, address, operation, payload, 4, signed)
            return
        one_word = get("SET_REPORT_SEMAPHORE_D", "STRUCTURE_SIZE", value)
        semaphore.release(self.channel, address, payload, 4, timestamp=not one_word)

    # Launches.

    def _old_pcas(self, value: int) -> None:
        if self.methods.get("SEND_SIGNALING_PCAS_B", "SCHEDULE", value):
            self._schedule()

    def _pcas(self, value: int) -> None:
        action = self.methods.named("SEND_SIGNALING_PCAS2_B", "PCAS_ACTION", value)
        if action in QMD_SCHEDULES:
            self._schedule()
        elif action not in QMD_PREPARES:
            raise BadPacket(f"SEND_SIGNALING_PCAS2_B: {action} is not modelled")

    def _schedule(self) -> None:
        qmd = self._read(self.state.get("SEND_PCAS_A", 0) << 8)
        if self.channel.schedule.holds_back():
            self.held.append(qmd)
        else:
            self._run_with_dependents(qmd)

    def _read(self, address: int) -> Qmd:
        versions = self.channel.gpu.board.qmd_versions
        size = max(LAYOUTS[version].size_bytes for version in versions)
        memory = self.channel.memory
        whole = memory.table.find(address)
        if whole is not None:
            size = min(size, whole.end - address)
        return read_qmd(memory.read(address, size), versions)

    def finish(self) -> None:
        """Runs what was held back. Raises BadPacket, GpuFault."""
        held, self.held = self.held, []
        for qmd in self.channel.schedule.shuffled(held):
            self._run_with_dependents(qmd)

    def _run_with_dependents(self, qmd: Qmd) -> None:
        waiting = [qmd]
        for _ in range(DEPENDENT_LIMIT):
            if not waiting:
                return
            current = waiting.pop(0)
            self._run(current)
            for release in current.releases:
                self._release(release)
            for address, action in current.dependents:
                if action not in (1, 3):  # QMD_SCHEDULE, QMD_INVALIDATE_COPY_SCHEDULE
                    raise BadPacket(f"a dependent QMD with action {action} is not modelled")
                waiting.append(self._read(address))
        raise BadPacket("a chain of dependent QMDs without an end")

    def _release(self, what: Release) -> None:
        if what.reduction is None:
            semaphore.release(
                self.channel, what.address, what.payload, what.size_bytes, what.timestamp
            )
            return
        semaphore.reduce(
            self.channel, what.address, REDUCTIONS[what.reduction], what.payload,
            what.size_bytes, what.signed,
        )

    def _launch_of(self, qmd: Qmd) -> simt.Launch:
        """What a QMD describes, worked out once for equal ones. Raises BadPacket, GpuFault."""
        state = tuple(map(self.state.get, LAUNCH_STATE))
        key = (qmd, self.channel.memory.table.generation, state)
        launch = self.launches.get(key)
        if launch is None:
            if len(self.launches) == LAUNCHES:
                self.launches.clear()
            launch = self.launches[key] = self.describe(qmd)
        return launch

    def describe(self, qmd: Qmd) -> simt.Launch:
        """The grid of a QMD, checked as far as the hardware does. Raises BadPacket, GpuFault."""
        board, table = self.channel.gpu.board, self.channel.memory.table
        threads = qmd.block[0] * qmd.block[1] * qmd.block[2]
        if not 1 <= threads <= THREAD_LIMIT:
            raise BadPacket(f"QMD: blocks of {qmd.block} threads; 1 to {THREAD_LIMIT}")
        shared = qmd.scaled("SHARED_MEMORY_SIZE")
        configured = max(0, qmd["MAX_SM_CONFIG_SHARED_MEM_SIZE"] - 1) * CONFIG_BYTES
        if shared > board.block_shared_kib << 10 or shared > configured:
            raise BadPacket(
                f"QMD: {shared} bytes of shared memory; the board has {board.block_shared_kib} "
                f"KiB for a block, MAX_SM_CONFIG_SHARED_MEM_SIZE allows {configured}"
            )
        entry = qmd.address("PROGRAM_ADDRESS")
        table.check(entry, 16, EXECUTE)
        banks = qmd.banks()
        for bank in banks.values():
            table.check(bank.address, max(bank.size_bytes, 1), READ)
        self._check_local(qmd.local_bytes)
        return simt.Launch(
            architecture=board.name, entry=entry, grid=qmd.grid, block=qmd.block,
            memory=self.ranges.now(), constant_banks=banks,
            registers=qmd.first("REGISTER_COUNT_V", "REGISTER_COUNT"),
            barriers=qmd["BARRIER_COUNT"], shared_bytes=shared, local_bytes=qmd.local_bytes,
            shared_window=self._wide(
                "SET_SHADER_SHARED_MEMORY_WINDOW_A", "SET_SHADER_SHARED_MEMORY_WINDOW_B"
            ),
            local_window=self._wide(
                "SET_SHADER_LOCAL_MEMORY_WINDOW_A", "SET_SHADER_LOCAL_MEMORY_WINDOW_B"
            ),
            end_address=self.channel.stop_address,
        )

    def _check_local(self, per_thread: int) -> None:
        """The local memory that the program allotted must do, if unused by the translator."""
        if not per_thread:
            return
        board = self.channel.gpu.board
        size = self._wide(
            "SET_SHADER_LOCAL_MEMORY_NON_THROTTLED_A", "SET_SHADER_LOCAL_MEMORY_NON_THROTTLED_B"
        )
        needed = per_thread * WARP * board.max_warps_per_sm * board.sms_per_tpc
        if size < needed:
            raise BadPacket(f"local memory: {size} bytes for a TPC, {needed} are needed")
        base = self._wide("SET_SHADER_LOCAL_MEMORY_A", "SET_SHADER_LOCAL_MEMORY_B")
        self.channel.memory.table.check(base, size * (board.sms // board.sms_per_tpc), WRITE)

    def _run(self, qmd: Qmd) -> None:
        if not qmd.has_grid:
            return
        launch = self._launch_of(qmd)
        count = qmd.grid[0] * qmd.grid[1] * qmd.grid[2]
        if not count:
            return
        schedule = self.channel.schedule
        for first, end in schedule.slices(count):
            schedule.step(self.channel, f"blocks {first} to {end - 1}")
            try:
                fault = simt.run(self.channel.process.simt(), launch, (first, end))
            except (UnknownInstruction, TranslationFailed) as unknown:
                raise BadPacket(str(unknown)) from unknown
            if fault is not None:
                report(self.channel, fault)
        self.channel.native.notify()
