"""A GPU's caches in strict mode: what they hide, and from whom, until somebody does as told.

Of every buffer that caches may hold there are, beside memory itself, four images:

    VIEW    what kernels read and write; lies at the buffer's GPU address
    SEEN    the first-level caches: what was there when they were last invalidated
    L2      the second-level cache
    CLEAN   memory as L2 knows it: bytes of L2 that differ are dirty

First-level caches write through: when a grid ends, what it has changed goes from VIEW to L2, and
VIEW becomes SEEN again, for the next grid may run on a compute unit that has the old lines. So
what may be stale is stale, in every run. Bytes count, as in the hardware's dirty masks; a byte
that is overwritten by itself is no change.
"""

from __future__ import annotations

import bisect
import ctypes
import enum
import errno
import os
import threading
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext

from drivers.emulated.memory import READ, WRITE, Backing, GuestMemory, HostMap, PageTable
from drivers.emulated.native import Native
from drivers.system import MAP_FIXED, MAP_SHARED, PROT_READ, PROT_WRITE, RealSystem

IMAGES = 4
BACK, FORTH = 1, 0  # what Native.write_back does with the image that it leaves
Range = tuple[int, int]  # GPU addresses
EVERYTHING: Range = (0, 1 << 64)
UNCACHED: AbstractContextManager[None] = nullcontext()


class Action(enum.Flag):
    """What a packet asks of caches."""

    NONE = 0
    WRITE_BACK_L2 = enum.auto()
    INVALIDATE_L2 = enum.auto()
    INVALIDATE_VECTOR = enum.auto()  # L1, or L0 of gfx10 and later
    INVALIDATE_MIDDLE = enum.auto()  # GL1 of gfx10 and gfx11
    INVALIDATE_SCALAR = enum.auto()


FIRST_LEVEL = Action.INVALIDATE_VECTOR | Action.INVALIDATE_MIDDLE | Action.INVALIDATE_SCALAR


class Views:
    """What the caches of all GPUs of a process share: its addresses show one GPU's at a time."""

    def __init__(self, native: Native, images: Backing, host: HostMap) -> None:
        self.native, self.images, self.host = native, images, host
        self.system = RealSystem()
        self.waves = threading.Lock()  # held while some run
        self.shown: dict[int, Shadow] = {}  # by address


class Shadow:
    """One buffer in one GPU's caches."""

    def __init__(
        self, views: Views, address: int, size_bytes: int, memory: int, memory_offset: int
    ) -> None:
        self.views, self.address, self.size_bytes = views, address, size_bytes
        self.offset = views.images.allocate(IMAGES * size_bytes)
        self.memory_descriptor, self.memory_offset = memory, memory_offset
        both = PROT_READ | PROT_WRITE
        self.memory = views.system.mmap(size_bytes, both, MAP_SHARED, memory, memory_offset)
        self.view = views.system.mmap(
            IMAGES * size_bytes, both, MAP_SHARED, views.images.descriptor, self.offset
        )
        self.seen, self.l2, self.clean = (self.view + i * size_bytes for i in range(1, IMAGES))
        self.invalidate_l2(EVERYTHING)
        self.invalidate_first(EVERYTHING)

    def close(self, idle: bool) -> None:
        """Forgets what is cached; the addresses stay readable until engines are idle."""
        self.views.host.unmap(self.view, IMAGES * self.size_bytes, idle)
        self.views.host.unmap(self.memory, self.size_bytes, idle)
        self.views.images.release(self.offset, IMAGES * self.size_bytes)

    def show(self) -> None:
        """Puts VIEW at the GPU address, where another GPU's may be."""
        if self.views.shown.get(self.address) is not self:
            self.views.system.mmap(
                self.size_bytes, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_FIXED,
                self.views.images.descriptor, self.offset, self.address,
            )
            self.views.shown[self.address] = self

    def _touched(self, image: int, within: Range) -> Iterator[Range]:
        """Parts of an image that have pages, within GPU addresses; as offsets in the buffer."""
        low = max(0, within[0] - self.address) & -8
        high = min(self.size_bytes, within[1] - self.address)
        if image == self.memory:
            yield from _extents(self.memory_descriptor, self.memory_offset, low, high)
        else:
            start = self.offset + image - self.view
            yield from _extents(self.views.images.descriptor, start, low, high)

    def end_of_grid(self, kept: int) -> None:
        """What it has written goes to L2. VIEW goes back, or forth while others run."""
        for first, end in self._touched(self.view, EVERYTHING):
            self.views.native.write_back(
                self.view + first, self.seen + first, self.l2 + first, end - first, kept
            )

    def invalidate_first(self, within: Range) -> None:
        """The first-level caches take what L2 has."""
        self._renew(self.view, self.seen, self.l2, within)

    def write_back_l2(self, within: Range) -> None:
        """Memory takes what is dirty in L2."""
        for first, end in self._touched(self.l2, within):
            self.views.native.write_back(
                self.l2 + first, self.clean + first, self.memory + first, end - first, FORTH
            )

    def invalidate_l2(self, within: Range) -> None:
        """L2 takes what memory has, where it is not dirty."""
        self._renew(self.l2, self.clean, self.memory, within)

    def _renew(self, image: int, base: int, source: int, within: Range) -> None:
        for touched in (source, image):  # what has no pages is zeros
            for first, end in self._touched(touched, within):
                self.views.native.renew(image + first, base + first, source + first, end - first)

    def dirty(self, at: int, size_bytes: int) -> bool:
        """Whether L2 has something to write back there."""
        cached = ctypes.string_at(self.l2 + at, size_bytes)
        return cached != ctypes.string_at(self.clean + at, size_bytes)

    def read(self, at: int, size_bytes: int) -> bytes:
        """Memory, and where L2 is dirty what that holds."""
        content = ctypes.string_at(self.memory + at, size_bytes)
        if not self.dirty(at, size_bytes):
            return content
        cached = ctypes.string_at(self.l2 + at, size_bytes)
        clean = ctypes.string_at(self.clean + at, size_bytes)
        return bytes(
            known if new == old else new
            for known, new, old in zip(content, cached, clean, strict=True)
        )

    def write(self, at: int, content: bytes, through: bool) -> None:
        """Into L2; if it goes `through`, it is clean there, and memory is the caller's."""
        if through:
            ctypes.memmove(self.clean + at, content, len(content))
        ctypes.memmove(self.l2 + at, content, len(content))


def _extents(descriptor: int, start: int, low: int, high: int) -> Iterator[Range]:
    """Where a sparse file has data between `start + low` and `start + high`; relative to start."""
    at = start + low
    while at < start + high:
        try:
            first = os.lseek(descriptor, at, os.SEEK_DATA)
        except OSError as failure:
            if failure.errno == errno.ENXIO:  # nothing follows
                return
            raise
        if first >= start + high:
            return
        at = min(os.lseek(descriptor, first, os.SEEK_HOLE), start + high)
        yield first - start, at - start


class Caches:
    """The caches of one GPU. Outside strict mode there are no shadows, and nothing is cached."""

    def __init__(self, views: Views, first_level: Action) -> None:
        self.views, self.first_level = views, first_level
        self.addresses: list[int] = []
        self.shadows: list[Shadow] = []  # by address
        self.lock = threading.RLock()  # of all that is here but VIEW, which `views.waves` guards
        self.invalidated = Action.NONE  # of the first level, since the last grid
        self.grids = 0  # that run

    def add(
        self, address: int, size_bytes: int, memory: int, memory_offset: int, shown: bool
    ) -> None:
        """A buffer is mapped; `shown` if it is on another GPU already. Raises OSError(ENOMEM)."""
        shadow = Shadow(self.views, address, size_bytes, memory, memory_offset)
        if not shown:
            try:
                self.views.host.map(address, size_bytes, self.views.images.descriptor,
                                    shadow.offset)
            except OSError:
                shadow.close(False)
                raise
            self.views.shown[address] = shadow
        with self.lock:
            place = bisect.bisect(self.addresses, address)
            self.addresses.insert(place, address)
            self.shadows.insert(place, shadow)

    def remove(self, address: int, idle: bool) -> None:
        """A buffer is unmapped: the kernel driver flushes the caches."""
        with self.lock:
            shadow = self.find(address)
            if shadow is None:
                return
            place = self.shadows.index(shadow)
            del self.shadows[place], self.addresses[place]
            shadow.write_back_l2(EVERYTHING)
            if self.views.shown.get(address) is shadow:
                del self.views.shown[address]
            shadow.close(idle)

    def find(self, address: int) -> Shadow | None:
        """The buffer that a byte lies in, if caches may hold it."""
        with self.lock:
            place = bisect.bisect(self.addresses, address) - 1
            if place < 0:
                return None
            shadow = self.shadows[place]
            return shadow if address < shadow.address + shadow.size_bytes else None

    def do(self, action: Action, within: Range = EVERYTHING) -> None:
        """Writes back, then invalidates. The first level counts when all its caches have been."""
        if not self.shadows or not action:
            return
        with self.lock:
            for shadow in self.shadows:
                if action & Action.WRITE_BACK_L2:
                    shadow.write_back_l2(within)
                if action & Action.INVALIDATE_L2:
                    shadow.invalidate_l2(within)
            self.invalidated |= action & self.first_level
            if self.invalidated != self.first_level:
                return
            self.invalidated = Action.NONE
        with self.views.waves, self.lock:
            for shadow in self.shadows:
                shadow.invalidate_first(within)

    def grid(self) -> AbstractContextManager[None]:
        """Around all of a grid's waves: at its end L2 has what they have written."""
        return self._grid() if self.shadows else UNCACHED

    @contextmanager
    def _grid(self) -> Iterator[None]:
        with self.lock:
            self.grids += 1
        try:
            yield
        finally:
            with self.views.waves, self.lock:
                self.grids -= 1
                self.invalidated = Action.NONE
                for shadow in self.shadows:
                    shadow.end_of_grid(FORTH if self.grids else BACK)

    def waves(self) -> AbstractContextManager[None]:
        """While waves run, at addresses that show this GPU's views and no other's."""
        return self._waves() if self.shadows else UNCACHED

    @contextmanager
    def _waves(self) -> Iterator[None]:
        with self.views.waves:
            with self.lock:
                for shadow in self.shadows:
                    shadow.show()
            yield


class PastCaches(GuestMemory):
    """Memory as copy engines see it: itself, whatever caches hold."""

    def __init__(self, table: PageTable, caches: Caches) -> None:
        super().__init__(table)
        self.caches = caches

    def place(self, address: int) -> int:
        """Where in this process a byte of memory lies."""
        shadow = self.caches.find(address)
        return address if shadow is None else shadow.memory + address - shadow.address

    def _pieces(self, address: int, size_bytes: int) -> Iterator[tuple[int, int, Shadow | None]]:
        """(address, size, buffer) of what lies in one buffer each; checked before."""
        end = address + size_bytes
        while address < end:
            shadow = self.caches.find(address)
            found = self.table.find(address) if shadow is None else None
            limit = end
            if shadow is not None:
                limit = min(end, shadow.address + shadow.size_bytes)
            elif found is not None:
                limit = min(end, found.end)
            yield address, limit - address, shadow
            address = limit

    def read(self, address: int, size_bytes: int) -> bytes:
        """Bytes."""
        self.table.check(address, size_bytes, READ)
        return b"".join(
            ctypes.string_at(self.place(at), size)
            for at, size, _ in self._pieces(address, size_bytes)
        )

    def write(self, address: int, content: bytes, through: bool = True) -> None:
        """Writes bytes."""
        self.table.check(address, len(content), WRITE)
        for at, size, _ in self._pieces(address, len(content)):
            ctypes.memmove(self.place(at), content[at - address : at - address + size], size)

    def copy(self, to: int, source: int, size_bytes: int, through: bool = True) -> None:
        """Copies bytes; on a fault nothing is copied."""
        self.table.check(to, size_bytes, WRITE)
        self.write(to, self.read(source, size_bytes), through)


class ThroughL2(PastCaches):
    """Memory as the command processor sees it: of L2 what is dirty there, else memory."""

    def read(self, address: int, size_bytes: int) -> bytes:
        """Bytes."""
        self.table.check(address, size_bytes, READ)
        with self.caches.lock:
            return b"".join(
                ctypes.string_at(at, size) if shadow is None
                else shadow.read(at - shadow.address, size)
                for at, size, shadow in self._pieces(address, size_bytes)
            )

    def load(self, address: int, size_bytes: int) -> int:
        """A number of 4 or 8 bytes."""
        with self.caches.lock:
            shadow = self.caches.find(address)
            if shadow is None or not shadow.dirty(address - shadow.address, size_bytes):
                return super().load(address, size_bytes)
            return int.from_bytes(self.read(address, size_bytes), "little")

    def write(self, address: int, content: bytes, through: bool = True) -> None:
        """Writes bytes."""
        self.table.check(address, len(content), WRITE)
        with self.caches.lock:
            for at, size, shadow in self._pieces(address, len(content)):
                piece = content[at - address : at - address + size]
                if shadow is not None:
                    shadow.write(at - shadow.address, piece, through)
                if shadow is None or through:
                    ctypes.memmove(self.place(at), piece, size)

    def store(self, address: int, value: int, size_bytes: int, through: bool = True) -> None:
        """Stores a number of 4 or 8 bytes at once."""
        with self.caches.lock:
            shadow = self.caches.find(address)
            if shadow is not None:
                self.table.check(address, size_bytes, WRITE)
                content = (value & (1 << 8 * size_bytes) - 1).to_bytes(size_bytes, "little")
                shadow.write(address - shadow.address, content, through)
            if shadow is None or through:
                super().store(address, value, size_bytes)
