"""Bytes between arrays of the host and a device's buffers.

What the host sees of a device's memory it can copy itself. For a GPU that goes over the bus, where
reading above all is slow; so from some size on (`Features`) the GPU reaches the host's pages
instead (`Device.host_buffer`), and its copy queue moves them. What lies in pages that are not
wholly the array's, and all of it where pages cannot be reached, the host copies.
"""

from __future__ import annotations

from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

from drivers import Buffer
from drivers.errors import QueueLimit, SystemCallFailed
from drivers.memory import HostMemory
from drivers.system import PAGE_BYTES
from tinyhw.device import Device, Runtime

Bytes: TypeAlias = npt.NDArray[np.uint8]


def bytes_of(array: npt.NDArray[Any]) -> Bytes:
    """The bytes of an array whose elements lie in row-major order, not copied."""
    return array.reshape(-1).view(np.uint8)


def copy_in(buffer: Buffer, data: Bytes) -> None:
    """Copies an array to a buffer's beginning, which nothing in flight uses."""
    _copy(buffer, data, inward=True)


def copy_out(buffer: Buffer, data: Bytes) -> None:
    """Copies a buffer's beginning to an array, when what writes the buffer has finished."""
    _copy(buffer, data, inward=False)


def _copy(buffer: Buffer, data: Bytes, inward: bool) -> None:
    runtime = Device.runtime(Device.canonicalize(buffer.device))
    features = runtime.device.features
    least = features.pin_to_write_bytes if inward else features.pin_to_read_bytes
    start = -data.ctypes.data % PAGE_BYTES
    end = start + (data.size - start) // PAGE_BYTES * PAGE_BYTES
    by_host = [slice(0, data.size)]
    if 0 < least <= end - start and _by_engine(runtime, buffer, data, slice(start, end), inward):
        by_host = [slice(0, start), slice(end, data.size)]
    seen = np.frombuffer(buffer.cpu_view(), np.uint8)
    for part in by_host:
        if inward:
            seen[part] = data[part]
        else:
            data[part] = seen[part]


def _by_engine(runtime: Runtime, buffer: Buffer, data: Bytes, pages: slice, inward: bool) -> bool:
    """Whether the copy queue has moved some pages; they may be ones that a GPU cannot reach."""
    size = pages.stop - pages.start
    try:
        queue = runtime.copy_queue
        host = runtime.device.host_buffer(data.ctypes.data + pages.start, size, data)
    except (SystemCallFailed, QueueLimit):
        return False
    there = buffer.view(pages.start, size)
    to, source = (there, host) if inward else (host, there)
    queue.commands().copy(to, source).submit().wait()
    assert isinstance(host.storage, HostMemory)
    host.storage.release()
    return True
