"""Keccak hashes (FIPS 202) of bytes, many messages at once.

The state is 5 rows of 5 lanes of 64 bits for each message; the 24 rounds are one kernel or two,
run 24 times.
"""

from __future__ import annotations

import math
from typing import Any, Self, TypeVar

import numpy as np

from compiler.dtype import dtypes
from tinyhw.errors import DtypeError, ShapeError
from tinyhw.grids import Grids

# name -> (bytes that a block absorbs, byte that ends a message, bytes of the hash)
HASHES = {
    "sha3_224": (144, 0x06, 28),
    "sha3_256": (136, 0x06, 32),
    "sha3_384": (104, 0x06, 48),
    "sha3_512": (72, 0x06, 64),
    "shake_128": (168, 0x1F, 16),
    "shake_256": (136, 0x1F, 32),
}
ROUNDS = 24
LEAF, CHUNK = 1 << 12, 1 << 20  # bytes; a chunk's leaves have hashes that fill one leaf

T = TypeVar("T", bound="Hashing")


class Hashing(Grids):
    """Digests of bytes."""

    __slots__ = ()

    def hash(self) -> Self:
        """16 bytes (uint8) for the tensor's bytes in row-major order, whatever its shape and dtype.

        A tree of SHAKE128 with 16 bytes of output, as tinygrad has it: of each 4,096 bytes, then of
        the 256 results of each mebibyte; those are hashed in the same way until one is left. Zeros
        fill the last mebibyte, so that they do not count at the end.
        """
        message = self.flatten().bitcast(dtypes.uint8)
        while True:
            length = message._fixed(0)
            message = message.pad([(0, -length % CHUNK or (0 if length else CHUNK))])
            leaves = message.reshape((-1, LEAF)).keccak("shake_128")
            message = leaves.reshape((-1, LEAF)).keccak("shake_128").flatten()
            if message.shape == (HASHES["shake_128"][2],):
                return message

    def keccak(self, cfg: str = "sha3_256") -> Self:
        """The hash of the bytes along the last axis: (..., length) to (..., size) uint8.

        cfg: "sha3_224", "sha3_256", "sha3_384", "sha3_512", or "shake_128" and "shake_256" with
        16 and 32 bytes of output.
        """
        if cfg not in HASHES:
            raise ShapeError(f"keccak knows {', '.join(HASHES)}, not {cfg!r}.")
        if self.dtype is not dtypes.uint8 or not self.ndim:
            raise DtypeError(f"keccak hashes uint8 along an axis, not {self.dtype}, {self.shape}.")
        rate, ending, size = HASHES[cfg]
        length = self._fixed(self.ndim - 1)
        end = np.zeros(rate - length % rate, np.uint8)
        end[0] |= ending
        end[-1] |= 0x80
        lead = self.shape[:-1]
        rows = math.prod(self._fixed(axis) for axis in range(self.ndim - 1))
        tail = self._upload(end, self.device)._broadcast_to((rows, len(end)))
        message = self.reshape((rows, length)).cat(tail, dim=1)
        words = message.unflatten(1, (-1, 8)).cast(dtypes.uint64)
        lanes = (words << (words._range_along(2) * 8).cast(dtypes.uint64)).sum(2)
        blocks = lanes.unflatten(1, (-1, rate // 8)).contiguous()
        state = self._constant(0, dtypes.uint64)._broadcast_to((rows, 25))
        constants = [self._upload(c, self.device) for c in _round_constants()]
        turns = _rotations()
        left, right = self._upload(turns, self.device), self._upload(64 - turns, self.device)
        places = self._upload(np.array(_places(), np.int32), self.device)
        for i in range(blocks._fixed(1)):
            block = blocks.select(1, i).pad([None, (0, 25 - rate // 8)])
            state = (state ^ block).contiguous()
            for constant in constants:
                state = _round(state, constant, left, right, places)
        out = state.unsqueeze(-1) >> (state._iota(8) * 8).cast(dtypes.uint64)
        return out.cast(dtypes.uint8).flatten(1)._part(1, 0, size).reshape((*lead, size))


def _round(state: T, constant: T, left: T, right: T, places: T) -> T:
    """One round of Keccak-f[1600] (FIPS 202, 3.2).

    Lanes are turned by `left` bits (`right` = 64 - left), then come from `places`.
    """
    lanes = state.unflatten(1, (5, 5))
    rows = [lanes.select(1, y) for y in range(5)]
    parity = rows[0] ^ rows[1] ^ rows[2] ^ rows[3] ^ rows[4]
    after = parity.roll(-1, 1)
    lanes = (lanes ^ (parity.roll(1, 1) ^ (after << 1 | after >> 63)).unsqueeze(1)).flatten(1)
    moved = (lanes << left | lanes >> right).contiguous()
    lanes = moved[:, places].unflatten(1, (5, 5))
    lanes = lanes ^ (~lanes.roll(-1, 2) & lanes.roll(-2, 2))
    return (lanes.flatten(1) ^ constant).contiguous()


def _rotations() -> np.ndarray[Any, Any]:
    """By how many bits lane 5*y + x is turned."""
    result = np.zeros(25, np.uint64)
    x, y = 1, 0
    for t in range(24):
        result[5 * y + x] = (t + 1) * (t + 2) // 2 % 64
        x, y = y, (2 * x + 3 * y) % 5
    return result


def _places() -> list[int]:
    """Where the lane that goes to 5*y + x comes from."""
    return [5 * x + (x + 3 * y) % 5 for y in range(5) for x in range(5)]


def _round_constants() -> list[np.ndarray[Any, Any]]:
    """What each round adds to lane 0: bits of a shift register (FIPS 202, 3.2.5)."""
    constants = []
    register = 1
    for _ in range(ROUNDS):
        value = 0
        for j in range(7):
            value |= (register & 1) << ((1 << j) - 1)
            register <<= 1
            if register & 0x100:
                register ^= 0x171
        constants.append(np.array([value] + [0] * 24, np.uint64))
    return constants
