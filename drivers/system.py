"""The only door to the operating system, and the versions of it that fail or record.

A driver calls nothing of the system but what stands here. The versions stack:
`FailingSystem(RecordingSystem(RealSystem()))` is as good a System as any, so that tests need no
monkeypatching. Every method raises OSError with an errno; drivers wrap it in their own family.
"""

# ruff: noqa: D102  (what System says of a method holds for every version of it)

from __future__ import annotations

import ctypes
import errno
import functools
import os
import select
import signal
from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import TypeVar

Result = TypeVar("Result")

PROT_READ, PROT_WRITE, PROT_EXEC = 1, 2, 4
MAP_SHARED, MAP_PRIVATE, MAP_ANONYMOUS = 0x01, 0x02, 0x20  # Linux, asm-generic/mman-common.h
PROT_NONE, MAP_FIXED, MAP_NORESERVE = 0, 0x10, 0x4000
MAP_FIXED_NOREPLACE = 0x100000  # fails where something is mapped; Linux 4.17
MADV_HUGEPAGE = 14
PAGE_BYTES = 4096

# A native thread leaves every signal to Python's threads, but for those of its own making.
_OWN_SIGNALS = {signal.SIGSEGV, signal.SIGBUS, signal.SIGFPE, signal.SIGILL, signal.SIGTRAP}


class System(ABC):
    """What a driver may ask of the operating system. Addresses are plain integers."""

    @abstractmethod
    def open(self, path: str, flags: int) -> int:
        """Opens a device node or file; returns its descriptor."""

    @abstractmethod
    def close(self, descriptor: int) -> None:
        """Closes a descriptor."""

    @abstractmethod
    def read(self, descriptor: int, size_bytes: int) -> bytes:
        """Reads up to `size_bytes` bytes."""

    @abstractmethod
    def ioctl(self, descriptor: int, request: int, argument: int) -> int:
        """Calls ioctl with the address of the argument structure; returns its result."""

    @abstractmethod
    def poll(self, descriptor: int, events: int, timeout_ms: int) -> int:
        """Waits for events on a descriptor; returns those that came, 0 after the timeout."""

    @abstractmethod
    def mmap(
        self,
        size_bytes: int,
        protection: int,
        flags: int,
        descriptor: int,
        offset: int,
        address: int = 0,
    ) -> int:
        """Maps memory; returns its address. Anonymous memory has descriptor -1.

        With MAP_FIXED it lies at `address`, in place of what was mapped there.
        """

    @abstractmethod
    def munmap(self, address: int, size_bytes: int) -> None:
        """Gives mapped memory back."""

    @abstractmethod
    def mprotect(self, address: int, size_bytes: int, protection: int) -> None:
        """Changes what may be done with mapped memory."""

    @abstractmethod
    def madvise(self, address: int, size_bytes: int, advice: int) -> None:
        """Tells the kernel how mapped memory will be used."""

    @abstractmethod
    def start_thread(self, function: int, argument: int, stack_bytes: int) -> int:
        """Starts native `void *function(void *argument)` in a thread; returns its handle.

        The thread knows nothing of Python and receives no asynchronous signals.
        """

    @abstractmethod
    def join_thread(self, handle: int) -> None:
        """Waits for a thread that is about to end, and frees what the system keeps for it."""

    @abstractmethod
    def kick(self, function: int) -> int:
        """Passes on, or replaces, the native function that tells a device that work is there.

        The submission path is native, so what is asked for here, once for each queue, is the
        address of `void kick(void *queue)`.
        """

    @abstractmethod
    def explain(self) -> str:
        """What is known here of a device's fault beyond its report, or who knows; a sentence."""


@functools.cache
def libc() -> ctypes.CDLL:
    """The C library that the process already runs on."""
    library = ctypes.CDLL(None, use_errno=True)
    word, integer, size = ctypes.c_void_p, ctypes.c_int, ctypes.c_size_t
    library.mmap.restype = word
    library.mmap.argtypes = [word, size, integer, integer, integer, ctypes.c_int64]
    library.munmap.argtypes = [word, size]
    library.mprotect.argtypes = [word, size, integer]
    library.madvise.argtypes = [word, size, integer]
    library.ioctl.argtypes = [integer, ctypes.c_ulong, word]
    library.mincore.argtypes = [word, size, word]
    library.pthread_create.argtypes = [word, word, word, word]
    library.pthread_join.argtypes = [ctypes.c_ulong, word]
    library.pthread_attr_init.argtypes = [word]
    library.pthread_attr_setstacksize.argtypes = [word, size]
    library.pthread_attr_destroy.argtypes = [word]
    return library


def address_of(name: str) -> int:
    """The address of a function of the C library, for native code to call."""
    return ctypes.cast(getattr(libc(), name), ctypes.c_void_p).value or 0


def resident_pages(address: int, size_bytes: int) -> bytes:
    """A byte for each page of mapped memory, bit 0 set if it has contents (mincore).

    Others are blank: reading them would only make the system fill them in. Raises OSError.
    """
    found = ctypes.create_string_buffer(-(-size_bytes // PAGE_BYTES))
    _checked(libc().mincore(address, size_bytes, found), "mincore")
    return found.raw


def _checked(result: int, call: str) -> int:
    if result < 0:
        number = ctypes.get_errno()
        raise OSError(number, f"{call}: {os.strerror(number)}")
    return result


def _check_number(number: int, call: str) -> None:
    """For the pthread functions, which return their errno."""
    if number:
        raise OSError(number, f"{call}: {os.strerror(number)}")


class RealSystem(System):
    """The operating system itself."""

    def open(self, path: str, flags: int) -> int:
        return os.open(path, flags | os.O_CLOEXEC)

    def close(self, descriptor: int) -> None:
        os.close(descriptor)

    def read(self, descriptor: int, size_bytes: int) -> bytes:
        return os.read(descriptor, size_bytes)

    def ioctl(self, descriptor: int, request: int, argument: int) -> int:
        while True:
            try:
                return _checked(libc().ioctl(descriptor, request, argument), "ioctl")
            except InterruptedError:
                continue

    def poll(self, descriptor: int, events: int, timeout_ms: int) -> int:
        poller = select.poll()
        poller.register(descriptor, events)
        ready = poller.poll(timeout_ms)
        return ready[0][1] if ready else 0

    def mmap(
        self,
        size_bytes: int,
        protection: int,
        flags: int,
        descriptor: int,
        offset: int,
        address: int = 0,
    ) -> int:
        mapped = libc().mmap(address, size_bytes, protection, flags, descriptor, offset)
        if mapped is None or mapped == ctypes.c_void_p(-1).value:
            _checked(-1, "mmap")
        return int(mapped)

    def munmap(self, address: int, size_bytes: int) -> None:
        _checked(libc().munmap(address, size_bytes), "munmap")

    def mprotect(self, address: int, size_bytes: int, protection: int) -> None:
        _checked(libc().mprotect(address, size_bytes, protection), "mprotect")

    def madvise(self, address: int, size_bytes: int, advice: int) -> None:
        _checked(libc().madvise(address, size_bytes, advice), "madvise")

    def start_thread(self, function: int, argument: int, stack_bytes: int) -> int:
        attributes = ctypes.create_string_buffer(64)  # sizeof(pthread_attr_t) is 56 or 64
        thread = ctypes.c_ulong()
        _check_number(libc().pthread_attr_init(attributes), "pthread_attr_init")
        blocked = set(signal.valid_signals()) - _OWN_SIGNALS
        before = signal.pthread_sigmask(signal.SIG_BLOCK, blocked)
        try:
            stack = libc().pthread_attr_setstacksize(attributes, stack_bytes)
            _check_number(stack, "pthread_attr_setstacksize")
            created = libc().pthread_create(ctypes.byref(thread), attributes, function, argument)
            _check_number(created, "pthread_create")
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, before)
            libc().pthread_attr_destroy(attributes)
        return thread.value

    def join_thread(self, handle: int) -> None:
        _check_number(libc().pthread_join(handle, None), "pthread_join")

    def kick(self, function: int) -> int:
        return function

    def explain(self) -> str:
        return "The kernel's log may say more (`dmesg` or `journalctl -k`)."


class StackedSystem(System):
    """Hands every call to the System below it, through `call`, which a subclass overrides."""

    def __init__(self, below: System) -> None:
        self.below = below

    def call(self, name: str, function: Callable[[], Result], *arguments: object) -> Result:
        """Makes the call `name(*arguments)`: `function` does it."""
        return function()

    def open(self, path: str, flags: int) -> int:
        return self.call("open", lambda: self.below.open(path, flags), path, flags)

    def close(self, descriptor: int) -> None:
        self.call("close", lambda: self.below.close(descriptor), descriptor)

    def read(self, descriptor: int, size_bytes: int) -> bytes:
        return self.call(
            "read", lambda: self.below.read(descriptor, size_bytes), descriptor, size_bytes
        )

    def ioctl(self, descriptor: int, request: int, argument: int) -> int:
        return self.call(
            "ioctl", lambda: self.below.ioctl(descriptor, request, argument),
            descriptor, request, argument,
        )

    def poll(self, descriptor: int, events: int, timeout_ms: int) -> int:
        return self.call(
            "poll", lambda: self.below.poll(descriptor, events, timeout_ms),
            descriptor, events, timeout_ms,
        )

    def mmap(
        self,
        size_bytes: int,
        protection: int,
        flags: int,
        descriptor: int,
        offset: int,
        address: int = 0,
    ) -> int:
        below = self.below
        return self.call(
            "mmap",
            lambda: below.mmap(size_bytes, protection, flags, descriptor, offset, address),
            size_bytes, protection, flags, descriptor, offset, address,
        )

    def munmap(self, address: int, size_bytes: int) -> None:
        self.call("munmap", lambda: self.below.munmap(address, size_bytes), address, size_bytes)

    def mprotect(self, address: int, size_bytes: int, protection: int) -> None:
        self.call(
            "mprotect", lambda: self.below.mprotect(address, size_bytes, protection),
            address, size_bytes, protection,
        )

    def madvise(self, address: int, size_bytes: int, advice: int) -> None:
        self.call(
            "madvise", lambda: self.below.madvise(address, size_bytes, advice),
            address, size_bytes, advice,
        )

    def start_thread(self, function: int, argument: int, stack_bytes: int) -> int:
        return self.call(
            "start_thread", lambda: self.below.start_thread(function, argument, stack_bytes),
            function, argument, stack_bytes,
        )

    def join_thread(self, handle: int) -> None:
        self.call("join_thread", lambda: self.below.join_thread(handle), handle)

    def kick(self, function: int) -> int:
        return self.call("kick", lambda: self.below.kick(function), function)

    def explain(self) -> str:
        return self.below.explain()


class RecordingSystem(StackedSystem):
    """Remembers every call in `calls`: (name, arguments, result or the OSError)."""

    def __init__(self, below: System) -> None:
        super().__init__(below)
        self.calls: list[tuple[str, tuple[object, ...], object]] = []

    def call(self, name: str, function: Callable[[], Result], *arguments: object) -> Result:
        """Makes the call and remembers how it ended."""
        try:
            result = function()
        except OSError as error:
            self.calls.append((name, arguments, error))
            raise
        self.calls.append((name, arguments, result))
        return result


class FailingSystem(StackedSystem):
    """Lets the `nth` call (from 1) of one of `names` fail with an errno, once.

    Calls that give something back (munmap, close, join_thread) do their work first, so that a
    test sees whether the driver copes with the error, not whether the test leaked.
    """

    GIVES_BACK = ("munmap", "close", "join_thread")

    def __init__(
        self, below: System, nth: int, number: int = errno.ENOMEM, names: tuple[str, ...] = ()
    ) -> None:
        super().__init__(below)
        self.nth, self.number, self.names = nth, number, names
        self.count = 0
        self.failed = ""

    def call(self, name: str, function: Callable[[], Result], *arguments: object) -> Result:
        """Makes the call, unless it is the one that fails."""
        if self.names and name not in self.names:
            return function()
        self.count += 1
        if self.count != self.nth:
            return function()
        self.failed = name
        if name in self.GIVES_BACK:
            function()
        raise OSError(self.number, f"{name}: {os.strerror(self.number)} (injected)")
