"""SDMA: the packets of copy queues. Three generations of them, one set of names.

Tables are the kernel's *_pkt_open.h. What a generation lacks (`mtype` of a FENCE on 4.x) is not
in its layout.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from types import ModuleType

from autogen import sdma_v4, sdma_v5, sdma_v6
from drivers.fields import Field, Layout, Packet, decode, fields_of, get

POLL_FOREVER = 0xFFF  # retry_count of POLL_REGMEM: all ones never gives up
UNCACHED = 3  # mtype of a FENCE: MTYPE_UC


@dataclass(frozen=True)
class SdmaPackets:
    """The packets of one SDMA generation; a copy packet moves at most `copy_bytes`."""

    copy: Layout
    write: Layout
    indirect: Layout
    fence: Layout
    trap: Layout
    poll: Layout
    timestamp: Layout
    copy_bytes: int
    fence_values: Mapping[str, int]

    @property
    def layouts(self) -> tuple[Layout, ...]:
        """All of them."""
        return (self.copy, self.write, self.indirect, self.fence, self.trap, self.poll,
                self.timestamp)  # fmt: skip

    def decode_stream(self, words: Sequence[int]) -> Iterator[tuple[int, Packet | str]]:
        """The packets of a stream with their offsets; dwords of 0 are NOPs and left out."""
        known = {(each.fixed["op"], each.fixed.get("sub_op", 0)): each for each in self.layouts}
        at = 0
        while at < len(words):
            if not words[at]:
                at += 1
                continue
            layout = known.get((words[at] & 0xFF, words[at] >> 8 & 0xFF))
            if layout is None:
                yield at, f"opcode {words[at] & 0xFF} with sub-opcode {words[at] >> 8 & 0xFF}"
                return
            size = layout.size_dwords
            if layout is self.write and at + size <= len(words):
                count = get(words[at : at + size], layout.fields["count"])
                size += count + 1  # the count is that of its data, less one
            if at + size > len(words):
                yield at, f"{layout.name}: {len(words) - at} of its {size} dwords"
                return
            yield at, decode(layout, words[at : at + size])
            at += size


def _halves(table: Mapping[str, tuple[int, ...]]) -> dict[str, tuple[str, str]]:
    """Every pair of `x_31_0` (or `x_31_3`) and `x_63_32`, as one field x."""
    found = {}
    for name in table:
        if name.endswith("_63_32"):
            stem = name.removesuffix("_63_32")
            low = f"{stem}_31_0" if f"{stem}_31_0" in table else f"{stem}_31_3"
            found[stem] = (low, name)
    return found


def _packets(module: ModuleType) -> SdmaPackets:
    def layout(name: str, op: int, sub_op: int = 0, tail: str = "") -> Layout:
        table = dict(module.PACKETS[name])
        if tail:
            table.pop("data0")  # the first dword of the tail
        fields: dict[str, Field] = fields_of(table, **_halves(table))
        size = 1 + max(piece.dword for places in fields.values() for piece in places)
        return Layout(name, size, fields, {"op": op, "sub_op": sub_op}, tail=tail)

    copy = layout("COPY_LINEAR", module.SDMA_OP_COPY, module.SDMA_SUBOP_COPY_LINEAR)
    fence = layout("FENCE", module.SDMA_OP_FENCE)
    return SdmaPackets(
        copy=copy,
        write=layout("WRITE_UNTILED", module.SDMA_OP_WRITE, tail="data"),
        indirect=layout("INDIRECT", module.SDMA_OP_INDIRECT),
        fence=fence,
        trap=layout("TRAP", module.SDMA_OP_TRAP),
        poll=layout("POLL_REGMEM", module.SDMA_OP_POLL_REGMEM),
        timestamp=layout(
            "TIMESTAMP_GET_GLOBAL", module.SDMA_OP_TIMESTAMP,
            module.SDMA_SUBOP_TIMESTAMP_GET_GLOBAL,
        ),
        copy_bytes=1 << copy.fields["count"][0].width,
        fence_values={"mtype": UNCACHED} if "mtype" in fence.fields else {},
    )


SDMA_4 = _packets(sdma_v4)
SDMA_5 = _packets(sdma_v5)
SDMA_6 = _packets(sdma_v6)
