"""The copy engine: LAUNCH_DMA copies lines, or fills them with constants (clc8b5.h)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from autogen import nv_555 as nv
from drivers.emulated.engine import BadPacket
from drivers.emulated.nv import semaphore
from drivers.emulated.nv.methods import class_methods

if TYPE_CHECKING:
    from drivers.emulated.nv.channel import Channel

COMPONENTS = "XYZW"
SOURCES = {f"SRC_{name}": index for index, name in enumerate(COMPONENTS)}
CONSTANTS = {"CONST_A": "SET_REMAP_CONST_A", "CONST_B": "SET_REMAP_CONST_B"}


class CopyObject:
    """A copy class on a subchannel."""

    error_code = nv.ROBUST_CHANNEL_CE0_ERROR

    def __init__(self, channel: Channel, number: int) -> None:
        self.channel, self.class_number = channel, number
        self.methods = class_methods(channel.gpu.board.copy_methods, number)
        self.state: dict[str, int] = {}

    def write(self, offset: int, value: int) -> None:
        """One method."""
        method = self.methods.find(offset, value)
        self.state[method.name] = value
        if method.name == "LAUNCH_DMA":
            self._launch(value)

    def _wide(self, name: str, high: str = "_UPPER", low: str = "_LOWER") -> int:
        return self.state.get(name + high, 0) << 32 | self.state.get(name + low, 0)

    def _launch(self, value: int) -> None:
        def get(field: str) -> int:
            return self.methods.get("LAUNCH_DMA", field, value)

        transfer = self.methods.named("LAUNCH_DMA", "DATA_TRANSFER_TYPE", value)
        self.channel.schedule.step(self.channel, f"LAUNCH_DMA {transfer}")
        if transfer in ("PIPELINED", "NON_PIPELINED"):
            if get("SRC_TYPE") or get("DST_TYPE"):
                raise BadPacket("LAUNCH_DMA: physical addresses are the kernel's")
            self._transfer(bool(get("REMAP_ENABLE")), bool(get("MULTI_LINE_ENABLE")), value)
        elif transfer != "NONE":
            raise BadPacket(f"LAUNCH_DMA: transfer type {transfer}")
        if get("SEMAPHORE_TYPE"):
            self._semaphore(value)

    def _transfer(self, remap: bool, lines: bool, value: int) -> None:
        source, target = self._wide("OFFSET_IN"), self._wide("OFFSET_OUT")
        length = self.state.get("LINE_LENGTH_IN", 0)
        count = self.state.get("LINE_COUNT", 0) if lines else 1
        pitch_in, pitch_out = self._signed("PITCH_IN"), self._signed("PITCH_OUT")
        reads = self._reads_source() if remap else True
        sides = [("SRC_MEMORY_LAYOUT", reads), ("DST_MEMORY_LAYOUT", True)]
        for layout, used in sides:
            if used and not self.methods.get("LAUNCH_DMA", layout, value):
                raise BadPacket("LAUNCH_DMA: block-linear memory is not modelled")
        for line in range(count):
            at, to = source + line * pitch_in, target + line * pitch_out
            if remap:
                self._remap(at, to, length)
            elif length:
                self.channel.memory.copy(to, at, length)
        self.channel.native.notify()

    def _signed(self, name: str) -> int:
        value = self.state.get(name, 0)
        return value - (1 << 32) if value >> 31 else value

    def _components(self) -> tuple[list[str], int, int]:
        """Where each component of the target comes from, bytes of one, components of the source."""
        value = self.state.get("SET_REMAP_COMPONENTS", 0)

        def get(field: str) -> int:
            return self.methods.get("SET_REMAP_COMPONENTS", field, value)

        count = get("NUM_DST_COMPONENTS") + 1
        chosen = [
            self.methods.named("SET_REMAP_COMPONENTS", f"DST_{name}", value)
            for name in COMPONENTS[:count]
        ]
        return chosen, get("COMPONENT_SIZE") + 1, get("NUM_SRC_COMPONENTS") + 1

    def _reads_source(self) -> bool:
        return any(name in SOURCES for name in self._components()[0])

    def _remap(self, source: int, target: int, elements: int) -> None:
        """One line of elements; lengths count elements here."""
        chosen, size, source_count = self._components()
        out_bytes, in_bytes = size * len(chosen), size * source_count
        memory = self.channel.memory
        content = b""
        if any(name in SOURCES for name in chosen):
            content = memory.read(source, elements * in_bytes)
        if "NO_WRITE" in chosen:
            line = bytearray(memory.read(target, elements * out_bytes))
        else:
            line = bytearray(elements * out_bytes)
        for index, name in enumerate(chosen):
            if name == "NO_WRITE":
                continue
            for byte in range(size):
                at = index * size + byte
                if name in SOURCES:
                    line[at::out_bytes] = content[SOURCES[name] * size + byte :: in_bytes]
                elif name in CONSTANTS:
                    constant = self.state.get(CONSTANTS[name], 0) >> 8 * byte & 0xFF
                    line[at::out_bytes] = bytes([constant]) * elements
                else:
                    raise BadPacket(f"SET_REMAP_COMPONENTS: a component from {name}")
        memory.write(target, bytes(line))

    def _semaphore(self, value: int) -> None:
        address = self._wide("SET_SEMAPHORE", "_A", "_B")
        kind = self.methods.get("LAUNCH_DMA", "SEMAPHORE_TYPE", value)
        wide = self.methods.get("LAUNCH_DMA", "SEMAPHORE_PAYLOAD_SIZE", value)
        payload = self.state.get("SET_SEMAPHORE_PAYLOAD", 0)
        if wide:
            payload |= self.state.get("SET_SEMAPHORE_PAYLOAD_UPPER", 0) << 32
        size = 8 if wide else 4
        if self.methods.get("LAUNCH_DMA", "SEMAPHORE_REDUCTION_ENABLE", value):
            name = self.methods.named("LAUNCH_DMA", "SEMAPHORE_REDUCTION", value)
            signed = not self.methods.get("LAUNCH_DMA", "SEMAPHORE_REDUCTION_SIGN", value)
            operation = semaphore.operation_name(name)
            semaphore.reduce(self.channel, address, operation, payload, size, signed)
        elif kind in (1, 2):  # one word; four words with the time
            semaphore.release(self.channel, address, payload, size, timestamp=kind == 2)
        else:
            raise BadPacket("LAUNCH_DMA: conditional semaphores are not modelled")
