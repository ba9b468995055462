"""Prints what a GPU was told: packets with their fields, registers, and the lists they lead to.

    python scripts/decode.py run.rec                     # every submission of a recording
    python scripts/decode.py run.rec --submission 3
    python scripts/decode.py run.rec --calls             # ioctls and mappings, too
    python scripts/decode.py ring.bin --as pm4 --gpu gfx1100

Dwords are little-endian, or hexadecimal text.

Of a recording's lists the contents are those at the moment of the doorbell. Dwords alone may be a
ring or a list, as `amdgpu_ring_*` of debugfs gives them; what they lead to is not at hand then.
"""

from __future__ import annotations

import argparse
import ctypes
import re
import sys
from collections.abc import Iterator, Sequence
from typing import Any, Final

from autogen import kfd as uapi
from drivers.amd.generations import GENERATIONS, Generation, architecture_name
from drivers.amd.listing import FORMATS, Listing, number, words_of
from drivers.errors import HardwareError
from drivers.marshal import kfd
from drivers.recording import (
    Ioctl,
    Kick,
    Mmap,
    Munmap,
    Open,
    Read,
    Record,
    Results,
    Writes,
    read_records,
)
from drivers.system import PAGE_BYTES

_KINDS: Final = {
    uapi.KFD_IOC_QUEUE_TYPE_COMPUTE: "pm4", uapi.KFD_IOC_QUEUE_TYPE_COMPUTE_AQL: "aql",
    uapi.KFD_IOC_QUEUE_TYPE_SDMA: "sdma", uapi.KFD_IOC_QUEUE_TYPE_SDMA_XGMI: "sdma",
}


class Image:
    """The memory of a recording as it stands at a record."""

    def __init__(self) -> None:
        self._pages: dict[int, bytearray] = {}

    def write(self, address: int, content: bytes) -> None:
        """Contents that somebody wrote."""
        while content:
            page, at = address & -PAGE_BYTES, address % PAGE_BYTES
            part = content[: PAGE_BYTES - at]
            held = self._pages.setdefault(page, bytearray(PAGE_BYTES))
            held[at : at + len(part)] = part
            address, content = address + len(part), content[len(part) :]

    def read(self, address: int, size_bytes: int) -> bytes | None:
        """Contents, 0 where nobody wrote; None if nobody wrote to any page of it."""
        first, end = address & -PAGE_BYTES, address + size_bytes
        pages = [self._pages.get(page) for page in range(first, end, PAGE_BYTES)]
        if not any(pages):
            return None
        whole = b"".join(page or bytes(PAGE_BYTES) for page in pages)
        return whole[address - first : end - first]


class Session:
    """Follows a recording: which GPUs there are, which queues, and what is in memory."""

    def __init__(self, calls: bool, only: int | None) -> None:
        self._calls, self._only = calls, only
        self._image, self._count = Image(), 0
        self._paths: dict[int, str] = {}
        self._nodes: dict[str, str] = {}  # topology node: the number that ioctls use
        self._gpus: dict[str, Generation] = {}
        self._queues: dict[int, tuple[str, str]] = {}  # ring: format, GPU

    def lines(self, record: Record) -> Iterator[str]:
        """What to print of a record."""
        if isinstance(record, Open):
            self._paths[record.descriptor] = record.path
        elif isinstance(record, Read):
            self._read(self._paths.get(record.descriptor, ""), record.content.decode("latin-1"))
        elif isinstance(record, Writes | Results):
            for address, content in record.runs:
                self._image.write(address, content)
        elif isinstance(record, Kick):
            yield from self._kick(record)
        if isinstance(record, Ioctl):
            self._ioctl(record)
            if self._calls:
                yield call_text(record)
        elif isinstance(record, Mmap | Munmap) and self._calls:
            what = type(record).__name__.lower()
            yield f"{what} of {record.size_bytes:#x} bytes at {record.address:#x}{_end(record)}"

    def _read(self, path: str, content: str) -> None:
        node, _, name = path.rpartition("/")
        if name == "gpu_id" and content:
            self._nodes[node] = content.strip()
        version = re.search(r"^gfx_target_version (\d+)", content, re.MULTILINE)
        if name == "properties" and version and node in self._nodes:
            generation = GENERATIONS.get(architecture_name(int(version[1])))
            if generation is not None:
                self._gpus[self._nodes[node]] = generation

    def _ioctl(self, record: Ioctl) -> None:
        if record.request == uapi.AMDKFD_IOC_CREATE_QUEUE and not record.error:
            queue = uapi.struct_kfd_ioctl_create_queue_args.from_buffer_copy(record.after)
            kind = _KINDS.get(queue.queue_type, "pm4")
            self._queues[queue.ring_base_address] = kind, str(queue.gpu_id)

    def _kick(self, record: Kick) -> Iterator[str]:
        self._count += 1
        if self._only not in (None, self._count):
            return
        kind, gpu = self._queues.get(record.ring, ("pm4", ""))
        generation = self._gpus.get(gpu)
        yield (
            f"submission {self._count}: {kind.upper()} ring at {record.ring:#x}, "
            f"{generation.name if generation else 'unknown GPU'}; dwords {record.first} to "
            f"{record.first + record.count - 1}; the doorbell says {number(record.told)}"
        )
        ring = self._image.read(record.ring, 4 * record.ring_dwords)
        if ring is None or generation is None:
            yield "      its contents are not in the recording"
            return
        words = words_of(ring)
        entry = [words[(record.first + i) % len(words)] for i in range(record.count)]
        yield from Listing(generation, self._image.read).lines(entry, kind)


def _end(record: Any) -> str:
    return f" → errno {record.error}" if record.error else ""


def call_text(record: Ioctl) -> str:
    """An ioctl with the fields of its argument after the call."""
    structure, name = kfd.structure_of(record.request), kfd.name_of(record.request)
    if structure is None or ctypes.sizeof(structure) > len(record.after):
        return f"{name}({record.after.hex()}){_end(record)}"
    fields = structure.from_buffer_copy(record.after)
    shown = [
        f"{field}={number(value)}" for field, *_ in structure._fields_
        if isinstance(value := getattr(fields, field), int) and value
    ]
    return f"{name}({', '.join(shown)}){_end(record)}"


def read_words(content: bytes) -> list[int]:
    """Dwords of a file: hexadecimal text, or binary."""
    if re.fullmatch(rb"[0-9a-fA-FxX,\s]+", content):
        return [int(word, 16) for word in re.split(rb"[,\s]+", content.strip())]
    return words_of(content)


def parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    """The command line; `arguments` stand in for sys.argv."""
    parser = argparse.ArgumentParser(description="Print packets with names.")
    parser.add_argument("file", help="a recording, or dwords with --as")
    parser.add_argument("--as", dest="kind", choices=FORMATS, help="the file is dwords of a ring")
    parser.add_argument("--gpu", choices=sorted(GENERATIONS), default="gfx1100")
    parser.add_argument("--submission", type=int, metavar="N", help="only this one, from 1")
    parser.add_argument("--calls", action="store_true", help="ioctls and mappings, too")
    return parser.parse_args(arguments)


def main(arguments: Sequence[str] | None = None) -> int:
    """Prints."""
    options = parse(arguments)
    try:
        with open(options.file, "rb") as file:
            if options.kind:
                listing = Listing(GENERATIONS[options.gpu])
                for line in listing.lines(read_words(file.read()), options.kind):
                    print(line)
                return 0
            session = Session(options.calls, options.submission)
            for record in read_records(file):
                for line in session.lines(record):
                    print(line)
    except BrokenPipeError:
        return 0
    except (HardwareError, OSError, ValueError) as error:
        print(error, file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
