"""What crosses between a program and its board: framed bytes, and descriptors beside them.

A message is a header and byte strings ("parts"). The program asks, the board answers with an
errno and parts. Nothing that crosses is a Python object; every size is checked on arrival.
"""

from __future__ import annotations

import array
import enum
import os
import socket
import struct

HEADER = struct.Struct("<IHHi")  # payload bytes, operation, descriptors, errno (replies)
PART = struct.Struct("<I")  # bytes of the part that follows
PAYLOAD_LIMIT = 64 << 20
DESCRIPTOR_LIMIT = 16


class Operation(enum.IntEnum):
    """What a program asks of its board."""

    HELLO = 1  # → the backing of each GPU
    CONNECT = 2  # a socket for one more thread
    OPEN = 3  # path, flags → file number and a descriptor
    CLOSE = 4  # file number
    IOCTL = 5  # file number, request, argument, arrays, files, aliases → the same, actions
    MMAP = 6  # file number, size, protection, flags, offset → where it lies in the descriptor
    FILES = 7  # → every file that stands in sysfs, with its content
    LOG = 8  # NUMBER of lines to leave out → why engines stopped, a line each
    SCHEDULE = 9  # → what engines have done in which order, a line each

    # What a board asks of the program, while an ioctl of it waits for its answer.
    READ = 10  # address, size → bytes
    WRITE = 11  # address; bytes
    FIND = 12  # a descriptor → file number, 0 for none of the board's
    SHARED = 13  # address, size → backing offset of user memory + 1, 0 if it is not shared yet


class Action(enum.IntEnum):
    """What a program does to its own memory when the board has said yes."""

    ADOPT = 1  # move these pages into the backing, so that both see them
    RETURN = 2  # give these pages back to the process, with what they hold
    STORE_DESCRIPTOR = 3  # write the number of a received descriptor into the argument


# File number, request, alias (backing offset + 1, or 0), address of the argument.
IOCTL_REQUEST = struct.Struct("<IIQQ")
ACTION = struct.Struct("<IIQQQ")  # action, GPU index, address, size_bytes, backing offset
ARRAY = struct.Struct("<I")  # offset of the pointer in the argument; the array's bytes follow
FILE = struct.Struct("<II")  # offset of the descriptor in the argument, file number or 0
OPEN_REQUEST = struct.Struct("<I")  # flags; the path follows
MMAP_REQUEST = struct.Struct("<IQIIQ")  # file number, size_bytes, protection, flags, offset
RANGE = struct.Struct("<QQ")  # address, size_bytes
NUMBER = struct.Struct("<Q")


class Disconnected(Exception):
    """The other side has gone."""


def pack(parts: list[bytes]) -> bytes:
    """Parts, one behind the other, each with its size."""
    return b"".join(PART.pack(len(part)) + part for part in parts)


def unpack(payload: bytes) -> list[bytes]:
    """The parts of a payload. Raises Disconnected if it does not add up."""
    parts, at = [], 0
    while at < len(payload):
        if at + PART.size > len(payload):
            raise Disconnected("a message ends in the middle of a size")
        (size,) = PART.unpack_from(payload, at)
        at += PART.size
        if at + size > len(payload):
            raise Disconnected("a message ends in the middle of a part")
        parts.append(payload[at : at + size])
        at += size
    return parts


class Connection:
    """One socket: asked by one thread at a time, answered by one thread of the board."""

    def __init__(self, sock: socket.socket) -> None:
        self.socket = sock

    def close(self) -> None:
        """Closes the socket."""
        self.socket.close()

    def send(
        self, operation: int, parts: list[bytes], descriptors: tuple[int, ...] = (),
        error: int = 0,
    ) -> None:
        """Sends a message. Raises Disconnected."""
        payload = pack(parts)
        message = HEADER.pack(len(payload), operation, len(descriptors), error) + payload
        try:
            if descriptors:
                sent = socket.send_fds(self.socket, [message], list(descriptors))
                message = message[sent:]
            if message:
                self.socket.sendall(message)
        except OSError as failure:
            raise Disconnected(str(failure)) from failure

    def receive(self) -> tuple[int, list[bytes], list[int], int]:
        """The next message: operation, parts, descriptors, errno. Raises Disconnected."""
        descriptors: list[int] = []
        try:
            header = self._read(HEADER.size, descriptors)
            size, operation, count, error = HEADER.unpack(header)
            if size > PAYLOAD_LIMIT or count > DESCRIPTOR_LIMIT or count != len(descriptors):
                raise Disconnected(f"a header that cannot be: {header.hex()}")
            parts = unpack(self._read(size, descriptors)) if size else []
        except BaseException:
            for descriptor in descriptors:
                os.close(descriptor)
            raise
        return operation, parts, descriptors, error

    def _read(self, size: int, descriptors: list[int]) -> bytes:
        content = bytearray()
        room = socket.CMSG_SPACE(DESCRIPTOR_LIMIT * 4)
        try:
            while len(content) < size:
                more, ancillary, _, _ = self.socket.recvmsg(
                    size - len(content), room, socket.MSG_CMSG_CLOEXEC
                )
                for level, kind, data in ancillary:
                    if level == socket.SOL_SOCKET and kind == socket.SCM_RIGHTS:
                        numbers = array.array("i")
                        numbers.frombytes(data[: len(data) - len(data) % numbers.itemsize])
                        descriptors.extend(numbers)
                if not more:
                    raise Disconnected("the other side has closed")
                content += more
        except OSError as failure:
            raise Disconnected(str(failure)) from failure
        return bytes(content)

    def ask(
        self, operation: int, parts: list[bytes], descriptors: tuple[int, ...] = ()
    ) -> tuple[list[bytes], list[int], int]:
        """Sends a message and waits for the answer: parts, descriptors, errno."""
        self.send(operation, parts, descriptors)
        _, answer, received, error = self.receive()
        return answer, received, error
