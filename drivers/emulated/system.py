"""The System that puts emulated boards under a driver: their nodes lead to a board process.

Everything else goes to the System below. Descriptors are real ones (of the memfds behind the
nodes), so that mapping and closing are the kernel's own; ioctls are packed into bytes, together
with the memory that they point to, and answered by the board.
"""

from __future__ import annotations

import contextlib
import errno
import json
import os
import socket
import subprocess
import sys
import threading
import weakref
from collections.abc import Callable
from dataclasses import dataclass

from drivers.emulated.native import make_kick, own_bell
from drivers.emulated.protocol import (
    ACTION,
    ARRAY,
    FILE,
    IOCTL_REQUEST,
    MMAP_REQUEST,
    NUMBER,
    OPEN_REQUEST,
    RANGE,
    Action,
    Connection,
    Disconnected,
    Operation,
)
from drivers.emulated.user_memory import UserMemory, read_memory, write_memory
from drivers.errors import DeviceNotAvailable
from drivers.marshal import kfd
from drivers.system import RealSystem, StackedSystem, System

DEFAULT_BOARD = "gfx1100"
VENDORS = {"gfx": "amd", "sm_": "nv"}  # by how the names of boards begin
# What goes along with an ioctl; boards of other vendors ask for what they want to see.
MARSHALS = {"amd": kfd}
PREFIXES = (*kfd.PREFIXES, "/dev/nvidia", "/proc/driver/nvidia/")
END_TIMEOUT_S = 5.0
TOLD_LINES = 3  # of the log, in the message of a fault

_SOURCES = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))

# Run by a bare interpreter: the caller's module search path, then the board.
START = (
    "import json, sys; sys.path[:] = json.loads(sys.argv[6]); "
    "from drivers.emulated.board import lay_out_low, main; "
    "lay_out_low(sys.argv); main(sys.argv[1:])"
)


@dataclass(frozen=True)
class _Open:
    """A descriptor of this process that leads to the board."""

    number: int  # the board's name for it
    inode: tuple[int, int]
    path: str


class _Process:
    """The board's process and the sockets to it."""

    def __init__(self, description: str, vendor: str, start: str) -> None:
        ours, theirs = socket.socketpair()
        bell = own_bell().descriptor
        # First of all where these sources are: an editable installation finds them by a hook.
        paths = [_SOURCES, *(os.path.abspath(path or os.curdir) for path in sys.path)]
        with ours, theirs:
            self.child = subprocess.Popen(
                [sys.executable, "-I", "-S", "-c", start, str(theirs.fileno()),
                 str(os.getpid()), str(bell), vendor, description, json.dumps(paths)],
                pass_fds=[theirs.fileno(), bell], stdin=subprocess.DEVNULL,
            )
            self.control = Connection(socket.socket(fileno=os.dup(ours.fileno())))
        self.idle: list[Connection] = []
        self.lock = threading.RLock()  # a device that goes calls wherever Python collects

    def ask(
        self, operation: int, parts: list[bytes], serve: Callable[[int, list[bytes]], bytes]
    ) -> tuple[list[bytes], list[int], int]:
        """Asks the board, on a socket that no other thread uses meanwhile.

        What the board asks before it answers, `serve` answers, or raises OSError.
        """
        with self.lock:
            connection = self.idle.pop() if self.idle else self._connect()
        try:
            connection.send(operation, parts)
            while True:
                asked, answer, descriptors, error = connection.receive()
                if asked == operation:
                    break
                try:
                    connection.send(asked, [serve(asked, answer)])
                except OSError as failure:
                    connection.send(asked, [str(failure).encode()], error=failure.errno or 5)
        except BaseException:
            connection.close()
            raise
        with self.lock:
            self.idle.append(connection)
        return answer, descriptors, error

    def _connect(self) -> Connection:
        ours, theirs = socket.socketpair()
        with theirs:
            answer, _, error = self.control.ask(Operation.CONNECT, [], (theirs.fileno(),))
        if error:
            ours.close()
            raise DeviceNotAvailable(
                f"Boards cannot be emulated as asked: {answer[0].decode()}.", operation="open",
                remedy="Name them as in EMULATE=gfx1100, EMULATE=gfx1100*2 or EMULATE=sm_90.",
            )
        return Connection(ours)

    def end(self) -> None:
        """Closes the sockets, and waits until the process has ended."""
        for connection in (self.control, *self.idle):
            connection.close()
        self.idle.clear()
        try:
            self.child.wait(END_TIMEOUT_S)
        except subprocess.TimeoutExpired:
            self.child.kill()
            self.child.wait()


def _end(
    process: _Process, owner: int, descriptors: list[int], user_memory: UserMemory
) -> None:
    """What remains to be done when an EmulatedSystem goes, or Python does."""
    for descriptor in descriptors:
        os.close(descriptor)
    descriptors.clear()
    if os.getpid() == owner:
        process.end()
        user_memory.leave_all()
    else:
        for connection in (process.control, *process.idle):
            connection.close()


class EmulatedSystem(StackedSystem):
    """Emulated boards on top of another System.

    `description` names them: 'gfx1100', 'gfx1100,gfx1201', 'gfx1100*2'; 'gfx1100,seed=7' runs the
    engines one at a time, in an order that the number fixes; with 'strict' GPUs have caches, and
    who forgets to write back or to invalidate them sees what was before; with 'eager' kernels are
    translated well before they have turned out to be used often. The board process starts
    with the first node that is opened, and ends with `shut_down`, with this object, or with the
    program, however that ends. When the last node is closed, what the program had goes.
    """

    def __init__(
        self, description: str = DEFAULT_BOARD, below: System | None = None, *,
        seed: int | None = None, strict: bool = False,
    ) -> None:
        super().__init__(below or RealSystem())
        self.description = description
        if seed is not None:
            self.description += f",seed={seed}"
        if strict:
            self.description += ",strict"
        self.vendor = VENDORS.get(description[:3], "amd")
        self.start = START
        self.lock = threading.RLock()
        self.process: _Process | None = None
        self.owner = os.getpid()
        self.opened: dict[int, _Open] = {}
        self.user_memory, self.adopting = UserMemory(), threading.RLock()
        self.shared: list[int] = []  # descriptors of the backing of each GPU
        self._told = 0  # lines of the log
        self._finalizer: weakref.finalize[..., EmulatedSystem] | None = None

    # The board's process.

    def _board(self) -> _Process:
        if self.process is not None:
            return self.process
        process = _Process(self.description, self.vendor, self.start)
        try:
            _, self.shared, _ = process.ask(Operation.HELLO, [], self._serve)
        except Disconnected as failure:
            process.end()
            raise OSError(errno.ENODEV, "the emulated board did not start") from failure
        except DeviceNotAvailable:
            process.end()
            raise
        self.process, self.owner, self._told = process, os.getpid(), 0
        self._finalizer = weakref.finalize(
            self, _end, process, self.owner, self.shared, self.user_memory
        )
        return process

    def _ask(self, operation: int, parts: list[bytes]) -> tuple[list[bytes], list[int], int]:
        if os.getpid() != self.owner and self.process is not None:
            raise OSError(errno.EBADF, "opened by another process")  # as kfd_ioctl
        with self.lock:
            process = self._board()
        try:
            return process.ask(operation, parts, self._serve)
        except Disconnected as failure:
            self.user_memory.leave_all()
            raise OSError(errno.ENODEV, f"the emulated board has gone: {failure}") from failure

    def _checked(
        self, operation: int, parts: list[bytes]
    ) -> tuple[list[bytes], list[int]]:
        answer, descriptors, error = self._ask(operation, parts)
        if error:
            detail = answer[0].decode() if answer else os.strerror(error)
            raise OSError(error, detail)
        return answer, descriptors

    def _serve(self, operation: int, parts: list[bytes]) -> bytes:
        """What the board asks while an ioctl waits for it. Raises OSError."""
        if operation == Operation.FIND:
            _, descriptor = FILE.unpack(parts[0])
            found = self._lookup(descriptor)
            return FILE.pack(0, found.number if found is not None else 0)
        address, size_bytes = RANGE.unpack(parts[0])
        if operation == Operation.READ:
            return read_memory(address, size_bytes)
        if operation == Operation.WRITE:
            write_memory(address, parts[1])
            return b""
        if operation == Operation.SHARED:
            return NUMBER.pack(self._alias(address, size_bytes))
        raise OSError(errno.ENOSYS, f"the board asks for {operation}")

    def shut_down(self) -> None:
        """Ends the board's process now. Descriptors and mappings stay, and lead nowhere."""
        with self.lock:
            if self._finalizer is not None:
                self._finalizer()
            self.process = None
            self.opened.clear()

    def files(self) -> dict[str, str]:
        """Every file of the emulated sysfs by its path."""
        answer, _ = self._checked(Operation.FILES, [])
        texts = [part.decode() for part in answer]
        return dict(zip(texts[::2], texts[1::2], strict=True))

    def log(self, start: int = 0) -> list[str]:
        """Why the board refused calls and stopped engines, a line each, from a line on."""
        answer, _ = self._checked(Operation.LOG, [NUMBER.pack(start)])
        return [line.decode() for line in answer]

    def explain(self) -> str:
        """Why engines stopped since this was asked last: the last lines of the log."""
        try:
            lines = self.log(self._told)
        except OSError:
            return "The emulated board has ended."
        self._told += len(lines)
        engines = [line for line in lines if not line.startswith("ioctl ")]
        said = "; ".join(engines[-TOLD_LINES:]).rstrip(".")
        return f"The emulated board says: {said}." if said else ""

    def schedule(self) -> list[str]:
        """What the engines have done in which order, if a seed fixes it: a line each."""
        answer, _ = self._checked(Operation.SCHEDULE, [])
        return [line.decode() for line in answer]

    # The calls.

    def open(self, path: str, flags: int) -> int:
        """Opens a node or file: an emulated one if its path is the boards'."""
        if not path.startswith(PREFIXES):
            return super().open(path, flags)
        answer, descriptors = self._checked(
            Operation.OPEN, [OPEN_REQUEST.pack(flags & 0xFFFFFFFF), os.fsencode(path)]
        )
        _, number = FILE.unpack(answer[0])
        descriptor = descriptors[0]
        with self.lock:
            self.opened[descriptor] = _Open(number, _inode(descriptor), path)
        return descriptor

    def _lookup(self, descriptor: int) -> _Open | None:
        """What a descriptor leads to, unless its number was closed and is something else now."""
        found = self.opened.get(descriptor)
        if found is None:
            return None
        try:
            if _inode(descriptor) == found.inode:
                return found
        except OSError:
            pass
        with self.lock:
            self.opened.pop(descriptor, None)
        return None

    def close(self, descriptor: int) -> None:
        """Closes a descriptor."""
        found = self._lookup(descriptor)
        super().close(descriptor)
        if found is None:
            return
        with self.lock:
            self.opened.pop(descriptor, None)
        if self.process is not None and os.getpid() == self.owner:
            # Without an answer the board has gone, and all that was open with it.
            with contextlib.suppress(OSError):
                self._ask(Operation.CLOSE, [FILE.pack(0, found.number)])
            with self.lock:
                last = not any(left.path.startswith("/dev/") for left in self.opened.values())
            if last:
                self.user_memory.leave_all()

    def mmap(
        self, size_bytes: int, protection: int, flags: int, descriptor: int, offset: int,
        address: int = 0,
    ) -> int:
        """Maps memory; of an emulated node, if the board allows it."""
        found = self._lookup(descriptor) if descriptor >= 0 else None
        if found is not None and found.path.startswith("/dev/"):
            answer, _ = self._checked(
                Operation.MMAP,
                [MMAP_REQUEST.pack(found.number, size_bytes, protection, flags, offset)],
            )
            (offset,) = NUMBER.unpack(answer[0])
        return super().mmap(size_bytes, protection, flags, descriptor, offset, address)

    def kick(self, function: int) -> int:
        """A kick that also rings the bell, so that the board need not poll fast."""
        return make_kick(super().kick(function))

    def ioctl(self, descriptor: int, request: int, argument: int) -> int:
        """Sends an ioctl to the board, with what it points to."""
        found = self._lookup(descriptor)
        if found is None:
            return super().ioctl(descriptor, request, argument)
        marshal = MARSHALS.get(self.vendor)
        if marshal is None:
            with self.adopting:  # any call may take or return the program's pages
                return self._send(found, request, 0, argument, bytearray(), [], [])
        given = bytearray(read_memory(argument, request >> 16 & 0x3FFF))
        arrays = marshal.arrays(request, given)
        files = [
            FILE.pack(place, self._number_of(given, place))
            for place in marshal.descriptors(request, given)
        ]
        user = marshal.user_range(request, given)
        if user is not None:
            with self.adopting:  # two for the same pages would find neither shared
                alias = self._alias(user[0], user[1], writable=True)
                return self._send(found, request, alias, argument, given, arrays, files)
        return self._send(found, request, 0, argument, given, arrays, files)

    def _send(
        self, found: _Open, request: int, alias: int, argument: int, given: bytearray,
        arrays: list[tuple[int, int, int]], files: list[bytes],
    ) -> int:
        parts = [IOCTL_REQUEST.pack(found.number, request, alias, argument), bytes(given),
                 len(arrays).to_bytes(4, "little")]
        parts += [
            ARRAY.pack(place) + read_memory(address, count)
            for place, address, count in arrays
        ]
        answer, descriptors = self._checked(Operation.IOCTL, parts + files)
        return self._finish(answer, descriptors, argument, arrays)

    def _number_of(self, given: bytearray, place: int) -> int:
        """The board's name of a descriptor that stands in an argument; 0 for none."""
        number = int.from_bytes(given[place : place + 4], "little", signed=True)
        found = self._lookup(number)
        return found.number if found is not None else 0

    def _alias(self, address: int, size_bytes: int, writable: bool = False) -> int:
        """One more than the backing offset of user memory that is shared already, or 0.

        Raises OSError for memory that is not there, or cannot be shared.
        """
        known = self.user_memory.find(address, size_bytes, writable)
        return 0 if known is None else known + 1

    def _finish(
        self, answer: list[bytes], descriptors: list[int], argument: int,
        arrays: list[tuple[int, int, int]],
    ) -> int:
        """Writes back what the board has changed, and does what it asks for."""
        error = int.from_bytes(answer[0], "little")
        changed = bytearray(answer[1])
        count = int.from_bytes(answer[2], "little")
        addresses = {place: address for place, address, _ in arrays}
        for part in answer[3 : 3 + count]:
            (place,) = ARRAY.unpack_from(part)
            write_memory(addresses[place], part[ARRAY.size :])
        for part in answer[3 + count :]:
            action, gpu, address, size_bytes, offset = ACTION.unpack(part)
            if action == Action.STORE_DESCRIPTOR:
                changed[offset : offset + 4] = descriptors.pop(0).to_bytes(4, "little")
            elif action == Action.ADOPT:
                self.user_memory.adopt(address, size_bytes, self.shared[gpu], offset)
            elif action == Action.RETURN:
                self.user_memory.give_back(address, size_bytes, self.shared[gpu])
        write_memory(argument, bytes(changed))
        if error:
            raise OSError(error, os.strerror(error) if error < 500 else "ENOTSUPP")
        return 0


def _inode(descriptor: int) -> tuple[int, int]:
    status = os.fstat(descriptor)
    return status.st_dev, status.st_ino


