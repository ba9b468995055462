"""A channel: GPFIFO entries, the pushbuffer segments they name, and the methods of the host.

*The program owns GP_PUT in USERD, the channel owns GP_GET.* A segment's methods are done one
after another. Grids are not: a launch may run later than methods behind it, until one waits.
"""

from __future__ import annotations

import ctypes
from collections.abc import Callable
from typing import TYPE_CHECKING

from autogen import nv_555 as nv
from drivers.emulated import engine
from drivers.emulated.engine import BadPacket
from drivers.emulated.memory import GpuFault, GuestMemory
from drivers.emulated.native import EQUAL, GREATER_EQUAL, NOT_EQUAL
from drivers.emulated.nv import semaphore
from drivers.emulated.nv.compute import ComputeObject
from drivers.emulated.nv.copy_engine import CopyObject
from drivers.emulated.nv.methods import class_methods, decode
from drivers.emulated.schedule import FULL_MASK, NOT_RUNG, Comparison

if TYPE_CHECKING:
    from drivers.emulated.nv.fifo import ChannelResource

CONTROL = nv.Nvc56fControl  # USERD: the same from Kepler to Hopper
USERD_BYTES = ctypes.sizeof(CONTROL)
HOST_METHODS_END = 0x100  # methods below are the host's, on any subchannel
ENTRY_BYTES = 8


class Channel(engine.Engine):
    """One channel on its runlist."""

    def __init__(self, resource: ChannelResource, userd: int) -> None:
        self.resource, self.gpu, self.process = resource, resource.gpu, resource.process
        name = f"{self.gpu.board.name}:{self.gpu.index} channel {resource.token:#x}"
        memory = GuestMemory(resource.space.table)
        super().__init__(self.process, self.gpu.index, name, memory)
        board = self.gpu.board
        self.methods = class_methods(board.channel_methods, resource.class_number)
        self.gpfifo, self.entries = resource.gpfifo, resource.entries
        self.gp_put = ctypes.c_uint32.from_address(userd + CONTROL.GPPut.offset)
        self.gp_get = ctypes.c_uint32.from_address(userd + CONTROL.GPGet.offset)
        self.get, self.put = 0, NOT_RUNG
        self.state: dict[str, int] = {}  # the host's methods
        self.bound: dict[int, ComputeObject | CopyObject] = {}  # by subchannel
        self.base = 0  # of segments, above 40 bits
        self.error_code = nv.ROBUST_CHANNEL_PBDMA_ERROR  # what an error now would be
        self.handlers: dict[str, Callable[[int], None]] = {
            "SEM_EXECUTE": self._semaphore, "SEMAPHORED": self._old_semaphore,
            "WFI": lambda value: self.finish(), "ILLEGAL": self._illegal,
            "MEM_OP_D": self._memory_operation, "SET_REFERENCE": self._reference,
            "CLEAR_FAULTED": self._privileged,
        }
        self.reference = ctypes.c_uint32.from_address(userd + CONTROL.Reference.offset)

    # The doorbell.

    def look(self) -> None:
        """Reads GP_PUT, if the channel may run."""
        if self.resource.scheduled:
            self.put = self.gp_put.value

    def rung(self) -> int:
        """GP_PUT, as it was when some channel's doorbell was last rung."""
        if self.gpu.collect():
            self.native.ring()
        return self.put

    def listen(self, seen: int) -> Comparison:
        """The GPU's one doorbell; GP_PUT while that stands still, if another channel leads."""
        if self.gp_put.value != self.put or self.gpu.leads(self):
            return self.gpu.listen()
        return Comparison(ctypes.addressof(self.gp_put), 4, FULL_MASK, NOT_EQUAL, self.put)

    def report_read_pointer(self) -> None:
        """GP_GET counts the entries that were fetched."""
        self.gp_get.value = self.get

    def fault(self, fault: GpuFault) -> None:
        """A page fault that UVM cannot mend: the channel group dies."""
        self.resource.group.die(nv.ROBUST_CHANNEL_FIFO_ERROR_MMU_ERR_FLT, f"{self.name}: {fault}")
        self.resource.group.mmu_fault = fault

    def hang(self, reason: str) -> None:
        """Something that host or engine does not accept: the channel group dies."""
        code = self.error_code
        self.resource.group.die(code, f"{self.name}: {reason}")

    # Entries.

    def consume(self, rung: int) -> None:
        """Does the entries up to GP_PUT."""
        self.error_code = nv.ROBUST_CHANNEL_PBDMA_ERROR
        if rung >= self.entries:
            raise BadPacket(f"GP_PUT is {rung}, the GPFIFO has {self.entries} entries")
        while self.get != rung and not self.halted:
            entry = self.memory.load(self.gpfifo + ENTRY_BYTES * self.get, 8)
            self.get = (self.get + 1) % self.entries
            self.report_read_pointer()
            self._entry(entry & 0xFFFFFFFF, entry >> 32)
        self.finish()

    def _entry(self, low: int, high: int) -> None:
        values = self.methods.values

        def field(name: str) -> int:
            shift, width = self.methods.entry[name]
            return (high if "ENTRY1" in name else low) >> shift & (1 << width) - 1

        length = field("GP_ENTRY1_LENGTH")
        if not length:
            opcodes = values["ENTRY.GP_ENTRY1_OPCODE"]
            opcode = field("GP_ENTRY1_OPCODE")
            if opcode == opcodes.get("SET_PB_SEGMENT_EXTENDED_BASE"):
                self.base = field("GP_ENTRY0_PB_EXTENDED_BASE_OPERAND") << 40
            elif opcode != opcodes["NOP"]:
                raise BadPacket(f"GPFIFO entry {high:#010x}{low:08x}: opcode {opcode}")
            return
        if field("GP_ENTRY0_FETCH"):
            raise BadPacket("a GPFIFO entry with a conditional fetch is not modelled")
        if field("GP_ENTRY1_SYNC"):
            self.finish()
        address = self.base | field("GP_ENTRY1_GET_HI") << 32 | field("GP_ENTRY0_GET") << 2
        self.run_segment(self.memory.words(address, length))

    def run_segment(self, words: list[int]) -> None:
        """Does the methods of a segment."""
        for subchannel, offset, value in decode(words, self.methods):
            if self.halted:
                return
            if offset < HOST_METHODS_END:
                self._host(subchannel, offset, value)
                continue
            target = self.bound.get(subchannel)
            if target is None:
                raise BadPacket(
                    f"method {offset:#x} on subchannel {subchannel}, which has no object"
                )
            self.error_code = target.error_code
            target.write(offset, value)
            self.error_code = nv.ROBUST_CHANNEL_PBDMA_ERROR

    def finish(self) -> None:
        """Waits until everything that was begun is done."""
        for bound in list(self.bound.values()):
            if isinstance(bound, ComputeObject):
                code, self.error_code = self.error_code, bound.error_code
                bound.finish()
                self.error_code = code

    # The host's methods.

    def _host(self, subchannel: int, offset: int, value: int) -> None:
        if not offset:  # SET_OBJECT: other names of the header are 0 too
            self._bind(subchannel, value)
            return
        method = self.methods.find(offset, value)
        self.state[method.name] = value
        handler = self.handlers.get(method.name)
        if handler is not None:
            handler(value)

    def _bind(self, subchannel: int, value: int) -> None:
        number = self.methods.get("SET_OBJECT", "NVCLASS", value)
        board = self.gpu.board
        if number not in self.resource.object_classes():
            self.error_code = nv.ROBUST_CHANNEL_GR_CLASS_ERROR
            raise BadPacket(f"SET_OBJECT: this channel has no object of class {number:#x}")
        before = self.bound.get(subchannel)
        if before is not None and before.class_number == number:
            return
        kind = ComputeObject if number == board.compute_class else CopyObject
        self.bound[subchannel] = kind(self, number)

    def _illegal(self, value: int) -> None:
        raise BadPacket("the method ILLEGAL")

    def _privileged(self, value: int) -> None:
        raise BadPacket("a method that only the kernel may use")

    def _reference(self, value: int) -> None:
        self.finish()
        self.reference.value = value

    def _memory_operation(self, value: int) -> None:
        operation = self.methods.named("MEM_OP_D", "OPERATION", value)
        if operation.startswith(("MMU", "L2_PEERMEM")) or operation.isdecimal():
            raise BadPacket(f"MEM_OP: {operation} is the kernel's, or none")

    def _semaphore(self, value: int) -> None:
        get = self.methods.get
        address = self.state.get("SEM_ADDR_LO", 0) | self.state.get("SEM_ADDR_HI", 0) << 32
        wide = get("SEM_EXECUTE", "PAYLOAD_SIZE", value)
        size = 8 if wide else 4
        payload = self.state.get("SEM_PAYLOAD_LO", 0)
        if wide:
            payload |= self.state.get("SEM_PAYLOAD_HI", 0) << 32
        operation = self.methods.named("SEM_EXECUTE", "OPERATION", value)
        self.schedule.step(self, f"SEM_EXECUTE {operation}")
        if operation.startswith("ACQ"):
            self._acquire(operation, address, size, payload)
            return
        if get("SEM_EXECUTE", "RELEASE_WFI", value):
            self.finish()
        if operation == "RELEASE":
            timestamp = bool(get("SEM_EXECUTE", "RELEASE_TIMESTAMP", value))
            semaphore.release(self, address, payload, size, timestamp)
        elif operation == "REDUCTION":
            kind = self.methods.named("SEM_EXECUTE", "REDUCTION", value)
            signed = not get("SEM_EXECUTE", "REDUCTION_FORMAT", value)
            name = semaphore.operation_name(kind)
            semaphore.reduce(self, address, name, payload, size, signed)
        else:
            raise BadPacket(f"SEM_EXECUTE: operation {operation}")

    def _old_semaphore(self, value: int) -> None:
        """SEMAPHOREA to D, which the host has kept from before Volta."""
        get = self.methods.get
        address = self.state.get("SEMAPHOREA", 0) << 32 | self.state.get("SEMAPHOREB", 0)
        payload = self.state.get("SEMAPHOREC", 0)
        operation = self.methods.named("SEMAPHORED", "OPERATION", value)
        self.schedule.step(self, f"SEMAPHORED {operation}")
        if operation == "RELEASE":
            if not get("SEMAPHORED", "RELEASE_WFI", value):  # 0 is EN here
                self.finish()
            timestamp = not get("SEMAPHORED", "RELEASE_SIZE", value)
            semaphore.release(self, address, payload, 4, timestamp)
        elif operation in ("ACQUIRE", "ACQ_GEQ", "ACQ_AND"):
            name = "ACQ_CIRC_GEQ" if operation == "ACQ_GEQ" else operation
            self._acquire(name, address, 4, payload)
        else:
            raise BadPacket(f"SEMAPHORED: operation {operation} is not modelled")

    def _acquire(self, operation: str, address: int, size: int, payload: int) -> None:
        """Waits for a semaphore. Raises Stopped, GpuFault."""
        if address % size:
            raise BadPacket(f"a semaphore of {size} bytes at {address:#x}")
        full = (1 << 8 * size) - 1
        if operation == "ACQ_CIRC_GEQ":
            while (value := self.memory.load(address, size)) - payload & full > full >> 1:
                self.wait_memory(address, size, full, NOT_EQUAL, value)
            return
        mask, function, reference = {
            "ACQUIRE": (full, EQUAL, payload),
            "ACQ_STRICT_GEQ": (full, GREATER_EQUAL, payload),
            "ACQ_AND": (payload, NOT_EQUAL, 0),
            "ACQ_NOR": (full & ~payload, NOT_EQUAL, full & ~payload),
        }[operation]
        self.wait_memory(address, size, mask, function, reference)


