"""What the kernel driver keeps once for a process: the open nodes and the page of events.

A GPU's address space belongs to the first render node that acquired it, until the process ends.
So the nodes stay open when a device is closed, and the next one uses them again.
"""

from __future__ import annotations

import contextlib
import threading
from typing import Final

from drivers.amd.abi import AGE_MINOR, Kfd, missing_remedy
from drivers.amd.memory import HOST, GpuMemory
from drivers.amd.topology import GpuNode
from drivers.blocks import Block
from drivers.nodes import open_node
from drivers.once import OncePerSystem
from drivers.system import System

EVENT_PAGE_BYTES: Final = 0x8000  # kfd_events.h: 4096 events of 8 bytes


class KfdProcess:
    """This process as one System's kernel driver knows it."""

    def __init__(self, system: System) -> None:
        self.system = system
        self.kfd = Kfd(system, "AMD")
        self.lock = threading.Lock()
        self._renders: dict[int, int] = {}
        self._event_page: Block | None = None
        self._page_users: set[int] = set()
        self._enabled = False

    def close(self) -> None:
        """Closes the nodes, when nobody can use them through this System any more."""
        if self._event_page is not None:
            self.system.munmap(self._event_page.address, EVENT_PAGE_BYTES)
            self._event_page = None
        for descriptor in self._renders.values():
            self.system.close(descriptor)
        self._renders.clear()
        self.kfd.close()

    def render(self, node: GpuNode, device: str) -> int:
        """The GPU's render node, opened and acquired at first use."""
        with self.lock:
            descriptor = self._renders.get(node.gpu_id)
            if descriptor is None:
                descriptor = open_node(self.system, node.render_node, device, missing_remedy)
                try:
                    self.kfd.acquire_vm(descriptor, node.gpu_id)
                    if not self._enabled and self.kfd.version >= (1, AGE_MINOR):
                        self.kfd.runtime_enable()
                        self._enabled = True
                except BaseException:
                    self.system.close(descriptor)
                    raise
                self._renders[node.gpu_id] = descriptor
            return descriptor

    def event_page(self, memory: GpuMemory) -> tuple[Block, int]:
        """The page of event mailboxes, mapped for this GPU too; and its handle, the first time."""
        with self.lock:
            first = self._event_page is None
            if self._event_page is None:
                self._event_page = memory.take(EVENT_PAGE_BYTES, HOST, "events")
                memory.blocks.pop(self._event_page.address)
            page, gpu_id = self._event_page, memory.node.gpu_id
            if gpu_id not in self._page_users:
                if not first:
                    self.kfd.map(page.handle, [gpu_id])
                self._page_users.add(gpu_id)
            return page, page.handle if first else 0

    def forget_event_page(self) -> None:
        """The kernel did not take the page: the next device brings another."""
        with self.lock:
            self._event_page = None
            self._page_users.clear()


    def __del__(self) -> None:
        if hasattr(self, "kfd"):
            with contextlib.suppress(OSError):
                self.close()


_processes: Final = OncePerSystem(KfdProcess, KfdProcess)
process_of: Final = _processes.of
"""The process's one connection through a System (the real one, if none is given)."""
forget_parent: Final = _processes.forget
"""In a forked child: the next device opens nodes of its own."""
