"""Methods as packets: a header, and the words of methods that follow each other.

The header of a run is that of an incrementing method (clc86f.h, DMA_INCR_*). Subchannels 0 and 4
are those that NVIDIA's own drivers give compute and copy objects; host methods go to any.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import ModuleType
from typing import Final

from autogen import nv_clc86f
from drivers.fields import Field, Layout, Piece, put, single

COMPUTE_SUBCHANNEL: Final = 0
COPY_SUBCHANNEL: Final = 4
_ENTRY: Final = nv_clc86f.FIELDS["ENTRY"]
_HEADER: Final = {
    name: single(0, *_ENTRY[f"DMA_INCR_{name}"])
    for name in ("ADDRESS", "SUBCHANNEL", "COUNT", "OPCODE")
}
_INCREMENTING: Final = nv_clc86f.VALUES["ENTRY.DMA_INCR_OPCODE"]["VALUE"]
_WORD: Final = 4


def header(method: int, count: int, subchannel: int) -> int:
    """The dword before `count` words for methods from an offset on."""
    words = [0]
    for name, value in (("ADDRESS", method // _WORD), ("SUBCHANNEL", subchannel),
                        ("COUNT", count), ("OPCODE", _INCREMENTING)):  # fmt: skip
        put(words, _HEADER[name], value, f"DMA_INCR_{name}")
    return words[0]


def run(
    table: ModuleType, subchannel: int, *methods: str, **joined: tuple[str, str]
) -> Layout:
    """A packet that calls consecutive methods of a class.

    Its fields are METHOD.FIELD, and METHOD for a method's whole word. `joined` names 64-bit
    values by the fields of their two halves, low and high.
    """
    offsets = [table.METHODS[name][0] for name in methods]
    if offsets != list(range(offsets[0], offsets[0] + _WORD * len(methods), _WORD)):
        raise ValueError(f"{methods} do not follow each other: {offsets}")
    fields: dict[str, Field] = {}
    for i, name in enumerate(methods, 1):
        fields[name] = single(i, 0, 32)
        for each, place in table.FIELDS.get(name, {}).items():
            fields[f"{name}.{each}"] = single(i, *place)
    for name, (low, high) in joined.items():
        first, second = fields[low][0], fields[high][0]
        fields[name] = (
            Piece(first.dword, first.shift, first.width, first.shift),
            Piece(second.dword, second.shift, second.width, 32),
        )
    start = header(offsets[0], len(methods), subchannel)
    return Layout(methods[0], 1 + len(methods), fields, header=lambda _: start)


class HostMethods:
    """What channels do themselves."""

    def __init__(self, table: ModuleType) -> None:
        self.semaphore = run(
            table, 0, "SEM_ADDR_LO", "SEM_ADDR_HI", "SEM_PAYLOAD_LO", "SEM_PAYLOAD_HI",
            "SEM_EXECUTE", address=("SEM_ADDR_LO.OFFSET", "SEM_ADDR_HI.OFFSET"),
            payload=("SEM_PAYLOAD_LO.PAYLOAD", "SEM_PAYLOAD_HI.PAYLOAD"),
        )
        self.wait_for_idle = run(table, 0, "WFI")
        self.nothing = run(table, 0, "NOP")
        self.operations: Mapping[str, int] = table.VALUES["SEM_EXECUTE.OPERATION"]


class CopyMethods:
    """What a copy engine does."""

    def __init__(self, table: ModuleType) -> None:
        self.object = run_object(table, COPY_SUBCHANNEL)
        self.place = run(
            table, COPY_SUBCHANNEL, "OFFSET_IN_UPPER", "OFFSET_IN_LOWER", "OFFSET_OUT_UPPER",
            "OFFSET_OUT_LOWER",
            source=("OFFSET_IN_LOWER", "OFFSET_IN_UPPER.UPPER"),
            destination=("OFFSET_OUT_LOWER", "OFFSET_OUT_UPPER.UPPER"),
        )
        self.size = run(table, COPY_SUBCHANNEL, "LINE_LENGTH_IN", "LINE_COUNT")
        self.launch = run(table, COPY_SUBCHANNEL, "LAUNCH_DMA")
        values = table.VALUES
        self.linear: Mapping[str, int] = {
            f"LAUNCH_DMA.{field}": values[f"LAUNCH_DMA.{field}"][value]
            for field, value in (
                ("DATA_TRANSFER_TYPE", "NON_PIPELINED"), ("FLUSH_ENABLE", "TRUE"),
                ("SRC_MEMORY_LAYOUT", "PITCH"), ("DST_MEMORY_LAYOUT", "PITCH"),
            )
        }


def run_object(table: ModuleType, subchannel: int) -> Layout:
    """SET_OBJECT, by which a subchannel is bound to a class; it is method 0 of every class."""
    first = header(0, 1, subchannel)
    return Layout("SET_OBJECT", 2, {"CLASS_ID": single(1, 0, 16)}, header=lambda _: first)


class ComputeMethods:
    """What the compute engine does. Launching differs between Turing and what came later."""

    def __init__(self, table: ModuleType, *, signals_with_action: bool) -> None:
        self.object = run_object(table, COMPUTE_SUBCHANNEL)
        self.wait_for_idle = run(table, COMPUTE_SUBCHANNEL, "WAIT_FOR_IDLE")
        self.invalidate = run(table, COMPUTE_SUBCHANNEL, "INVALIDATE_SHADER_CACHES_NO_WFI")
        self.qmd = run(table, COMPUTE_SUBCHANNEL, "SEND_PCAS_A")
        name = "SEND_SIGNALING_PCAS2_B" if signals_with_action else "SEND_SIGNALING_PCAS_B"
        self.launch = run(table, COMPUTE_SUBCHANNEL, name)
        self.launch_values: Mapping[str, int] = (
            {f"{name}.PCAS_ACTION": table.VALUES[f"{name}.PCAS_ACTION"]["INVALIDATE_COPY_SCHEDULE"]}
            if signals_with_action else {f"{name}.INVALIDATE": 1, f"{name}.SCHEDULE": 1}
        )
        self.shared_window = _address(table, "SET_SHADER_SHARED_MEMORY_WINDOW", "BASE_ADDRESS")
        self.local_window = _address(table, "SET_SHADER_LOCAL_MEMORY_WINDOW", "BASE_ADDRESS")
        self.local_memory = _address(table, "SET_SHADER_LOCAL_MEMORY", "ADDRESS")
        throttled = "SET_SHADER_LOCAL_MEMORY_NON_THROTTLED"
        self.local_size = run(
            table, COMPUTE_SUBCHANNEL, *(f"{throttled}_{letter}" for letter in "ABC"),
            size=(f"{throttled}_B", f"{throttled}_A.SIZE_UPPER"),
        )


def _address(table: ModuleType, name: str, field: str) -> Layout:
    """Two methods that take the upper and the lower half of an address."""
    return run(
        table, COMPUTE_SUBCHANNEL, f"{name}_A", f"{name}_B",
        address=(f"{name}_B", f"{name}_A.{field}_UPPER"),
    )
