"""The board: a process that stands where the kernel and the hardware stand, for one program.

It is started by `EmulatedSystem` with one socket, and ends with that socket or with the program,
whichever is first. Each thread of the program that calls has a socket, and a thread here.
"""

from __future__ import annotations

import errno
import importlib
import os
import resource
import select
import signal
import socket
import sys
import threading
from collections.abc import Callable

from drivers.emulated.model import Call, Model, OpenFile, Program
from drivers.emulated.protocol import (
    ACTION,
    ARRAY,
    FILE,
    IOCTL_REQUEST,
    MMAP_REQUEST,
    NUMBER,
    OPEN_REQUEST,
    Connection,
    Disconnected,
    Operation,
)

SWITCH_INTERVAL_S = 0.0002  # engines and callers are threads of one interpreter
STACK_RLIMIT_BYTES = 8 << 20

Answer = tuple[list[bytes], tuple[int, ...]]


class Server:
    """Answers one program."""

    def __init__(self, model: Model) -> None:
        self.model = model
        self.files: dict[int, OpenFile] = {}
        self.nodes: set[int] = set()  # open device nodes among the files
        self.next_file = 1
        self.lock = threading.Lock()
        self.operations: dict[int, Callable[[Connection, list[bytes]], Answer]] = {
            Operation.HELLO: self._hello,
            Operation.OPEN: self._open,
            Operation.CLOSE: self._close,
            Operation.IOCTL: self._ioctl,
            Operation.MMAP: self._mmap,
            Operation.FILES: self._files,
            Operation.LOG: self._log,
            Operation.SCHEDULE: self._schedule,
        }
        self.connections: list[Connection] = []
        self.busy: set[Connection] = set()
        model.watch(self.idle)

    def idle(self) -> bool:
        """Whether the program has asked nothing that is not answered, but to wait."""
        poller = select.poll()
        for connection in list(self.connections):
            if connection.socket.fileno() >= 0:
                poller.register(connection.socket, select.POLLIN)
        return not poller.poll(0) and not self.busy

    def serve(self, connection: Connection) -> None:
        """Answers until the other side closes."""
        self.connections.append(connection)
        poller = select.poll()
        poller.register(connection.socket, select.POLLIN)
        try:
            while True:
                self.busy.discard(connection)
                poller.poll()
                self.busy.add(connection)  # before the message is gone from the socket
                operation, parts, descriptors, _ = connection.receive()
                if operation == Operation.CONNECT:
                    for descriptor in descriptors:
                        self.start(Connection(socket.socket(fileno=descriptor)))
                    connection.send(operation, [])
                    continue
                for descriptor in descriptors:
                    os.close(descriptor)
                self._answer(connection, operation, parts)
        except Disconnected:
            self.connections.remove(connection)
            self.busy.discard(connection)
            connection.close()

    def start(self, connection: Connection) -> None:
        """Serves a connection in a thread of its own."""
        threading.stack_size(0)
        threading.Thread(target=self.serve, args=(connection,), daemon=True).start()

    def _answer(self, connection: Connection, operation: int, parts: list[bytes]) -> None:
        handler = self.operations.get(operation)
        if handler is None:
            connection.send(operation, [], error=errno.ENOSYS)
            return
        try:
            answer, descriptors = handler(connection, parts)
        except OSError as failure:
            connection.send(operation, [str(failure).encode()], error=failure.errno or errno.EIO)
            return
        connection.send(operation, answer, descriptors)

    def _hello(self, connection: Connection, parts: list[bytes]) -> Answer:
        return [], tuple(self.model.descriptors())

    def _open(self, connection: Connection, parts: list[bytes]) -> Answer:
        (flags,) = OPEN_REQUEST.unpack(parts[0])
        path = os.fsdecode(parts[1])
        file = self.model.open(path, flags)
        with self.lock:
            number, self.next_file = self.next_file, self.next_file + 1
            self.files[number] = file
            if path.startswith("/dev/"):
                self.nodes.add(number)
        return [FILE.pack(0, number)], (file.descriptor(),)

    def _file(self, number: int) -> OpenFile:
        file = self.files.get(number)
        if file is None:
            raise OSError(errno.EBADF, f"no open file {number}")
        return file

    def _close(self, connection: Connection, parts: list[bytes]) -> Answer:
        _, number = FILE.unpack(parts[0])
        with self.lock:
            file = self._file(number)
            del self.files[number]
            last = number in self.nodes and len(self.nodes) == 1
            self.nodes.discard(number)
        file.close()
        if last:
            self.model.reset()
        return [], ()

    def _ioctl(self, connection: Connection, parts: list[bytes]) -> Answer:
        number, request, alias, address = IOCTL_REQUEST.unpack(parts[0])
        file = self._file(number)
        call = Call(
            request, bytearray(parts[1]), Program(connection, self.files), address,
            alias=alias - 1 if alias else None,
        )
        if file.waits(request):
            self.busy.discard(connection)
        arrays, files = int.from_bytes(parts[2], "little"), parts[3:]
        for part in files[:arrays]:
            (place,) = ARRAY.unpack_from(part)
            call.arrays[place] = bytearray(part[ARRAY.size :])
        for part in files[arrays:]:
            place, other = FILE.unpack(part)
            call.files[place] = self.files.get(other)
        error = 0
        try:
            file.ioctl(call)
        except OSError as failure:
            error = failure.errno or errno.EIO
            self.model.log.append(f"ioctl {request:#x}: {failure}")
        answer = [error.to_bytes(4, "little"), bytes(call.argument),
                  len(call.arrays).to_bytes(4, "little")]
        answer += [ARRAY.pack(place) + bytes(content) for place, content in call.arrays.items()]
        answer += [ACTION.pack(*action) for action in call.actions]
        return answer, tuple(call.descriptors)

    def _mmap(self, connection: Connection, parts: list[bytes]) -> Answer:
        number, size_bytes, protection, flags, offset = MMAP_REQUEST.unpack(parts[0])
        place = self._file(number).mmap(size_bytes, protection, flags, offset)
        return [NUMBER.pack(place)], ()

    def _files(self, connection: Connection, parts: list[bytes]) -> Answer:
        answer: list[bytes] = []
        for path, text in self.model.files().items():
            answer += [os.fsencode(path), text.encode()]
        return answer, ()

    def _log(self, connection: Connection, parts: list[bytes]) -> Answer:
        return [line.encode() for line in self.model.log[NUMBER.unpack(parts[0])[0] :]], ()

    def _schedule(self, connection: Connection, parts: list[bytes]) -> Answer:
        return [line.encode() for line in self.model.schedule()], ()


def lay_out_low(arguments: list[str]) -> None:
    """Starts this process anew with its own memory far below that of programs.

    The kernel lays memory out downward from the stack's limit. Without a limit it goes upward
    from a third of the address space, so that what a program maps near the top is free here.
    """
    soft, hard = resource.getrlimit(resource.RLIMIT_STACK)
    unlimited = resource.RLIM_INFINITY
    if "--low" in arguments or hard != unlimited:
        if hard == unlimited:
            resource.setrlimit(resource.RLIMIT_STACK, (STACK_RLIMIT_BYTES, hard))
        return
    program_is_low = soft == unlimited
    limit = STACK_RLIMIT_BYTES if program_is_low else unlimited
    resource.setrlimit(resource.RLIMIT_STACK, (limit, hard))
    os.execv(sys.executable, [*sys.orig_argv, "--low"])


def main(arguments: list[str]) -> None:
    """`SOCKET PROGRAM BELL VENDOR DESCRIPTION`: serves until the socket or the program ends."""
    sock, program, bell, vendor, description = arguments[:5]
    control = Connection(socket.socket(fileno=int(sock)))
    try:
        pidfd = os.pidfd_open(int(program))
    except ProcessLookupError:
        return
    sys.setswitchinterval(SWITCH_INTERVAL_S)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the program
    machine = importlib.import_module(f"drivers.emulated.{vendor}.machine")
    try:
        model: Model = machine.Machine(description, int(bell), int(program))
    except ValueError as wrong:
        control.send(control.receive()[0], [str(wrong).encode()], error=errno.EINVAL)
        return
    server = Server(model)
    ended = threading.Event()
    reading, writing = os.pipe()

    def serve() -> None:
        server.serve(control)
        ended.set()
        os.write(writing, b"\0")

    threading.Thread(target=serve, daemon=True).start()
    poller = select.poll()
    poller.register(pidfd, select.POLLIN)
    poller.register(reading, select.POLLIN)
    poller.poll()
    model.shut_down()
    os._exit(0)
