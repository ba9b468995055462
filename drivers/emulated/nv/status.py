"""The status that RM and UVM answer in each structure (nvstatuscodes.h). An ioctl returns 0."""

from __future__ import annotations

import enum


class Status(enum.IntEnum):
    """NV_STATUS: those that the board answers."""

    OK = 0x00
    ILLEGAL_ACTION = 0x16
    IN_USE = 0x17
    INSERT_DUPLICATE_NAME = 0x19
    INSUFFICIENT_RESOURCES = 0x1A
    INVALID_ADDRESS = 0x1E
    INVALID_ARGUMENT = 0x1F
    INVALID_BASE = 0x20
    INVALID_CHANNEL = 0x21
    INVALID_CLASS = 0x22
    INVALID_CLIENT = 0x23
    INVALID_DEVICE = 0x26
    INVALID_FLAGS = 0x29
    INVALID_LIMIT = 0x2E
    INVALID_OBJECT = 0x31
    INVALID_OBJECT_HANDLE = 0x33
    INVALID_OBJECT_PARENT = 0x36
    INVALID_OFFSET = 0x37
    INVALID_OWNER = 0x39
    INVALID_PARAM_STRUCT = 0x3A
    INVALID_STATE = 0x40
    NO_MEMORY = 0x51
    NOT_SUPPORTED = 0x56
    OBJECT_NOT_FOUND = 0x57
    OUT_OF_RANGE = 0x5B
    STATE_IN_USE = 0x63
    UVM_ADDRESS_IN_USE = 0x68
    WARN_NOTHING_TO_DO = 0x10006


class RmError(Exception):
    """A call that is refused with a status; `detail` goes to the board's log."""

    def __init__(self, status: Status, detail: str) -> None:
        super().__init__(f"{status.name}: {detail}")
        self.status = status


def require(condition: object, status: Status, detail: str) -> None:
    """Raises RmError unless a condition holds."""
    if not condition:
        raise RmError(status, detail)
