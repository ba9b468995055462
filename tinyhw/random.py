"""Random numbers from a counter: reproducible from a seed, and the same on every device.

Element i of the c-th draw on a device is threefry2x32 of (i, c) under a key made from the seed
(Salmon et al., Parallel Random Numbers: As Easy as 1, 2, 3, SC 2011; 20 rounds). Key and c lie in
the device's memory, and a draw advances c there, so that a replayed capture draws new numbers.
"""

from __future__ import annotations

import math
import time
from typing import Any, ClassVar, Self, TypeVar

import numpy as np

from compiler.dtype import FORMATS, dtypes
from compiler.ir import Node
from tinyhw.core import DTypeLike, to_dtype, to_shape
from tinyhw.creation import Creation
from tinyhw.device import Device
from tinyhw.errors import DtypeError, ShapeError
from tinyhw.movement import product

ROTATIONS = ((13, 15, 26, 6), (17, 29, 16, 24))
KEY_PARITY = 0x1BD11BDA
ROUNDS = 20

T = TypeVar("T", bound="Random")


class Random(Creation):
    """Distributions, and the layers' ways to start."""

    __slots__ = ()

    _seed: ClassVar[int | None] = None
    _states: ClassVar[dict[str, Any]] = {}  # device -> uint32 (key, key, number of draws)

    # ---- the generator ----
    @classmethod
    def manual_seed(cls, seed: int = 0) -> None:
        """Starts the numbers of every device anew; captured functions follow."""
        if not isinstance(seed, int):
            raise DtypeError(f"A seed is an integer, not {seed!r}.")
        Random._seed = seed
        for device, state in list(Random._states.items()):
            state.assign(cls._first_state(device))

    @classmethod
    def _first_state(cls, device: str) -> Any:
        if Random._seed is None:
            Random._seed = time.time_ns()
        seed = Random._seed & 0xFFFFFFFFFFFFFFFF
        words = np.array([seed & 0xFFFFFFFF, seed >> 32, 0], dtype=np.uint32)
        return cls._upload(words, device)

    @classmethod
    def _draw(cls, shape: tuple[Any, ...], device: str) -> tuple[Self, Self]:
        """Two independent words of 32 random bits for each place of `shape`."""
        if device not in Random._states:
            Random._states[device] = cls._first_state(device)
        state = Random._states[device]
        state.assign(state + cls.arange(3, device=device).eq(2).cast(dtypes.uint32))
        count = product(shape)
        index = cls._wrap(Node.iota(count).cast(dtypes.uint32), device)
        key0, key1, draws = (state[i : i + 1].detach() for i in range(3))
        first, second = _threefry(key0, key1, index, draws)
        return first.reshape(shape), second.reshape(shape)

    @classmethod
    def _uniform(cls, shape: tuple[Any, ...], device: str, dtype: DTypeLike | None) -> Self:
        """Floats in [0, 1), every multiple of the type's precision alike."""
        wanted = dtypes.default_float if dtype is None else to_dtype(dtype)
        if not dtypes.is_float(wanted):
            raise DtypeError(f"Random numbers in [0, 1) are floats, not {wanted}.")
        first, second = cls._draw(shape, device)
        if wanted is dtypes.float64:
            high = (first >> 5).cast(wanted) * 2.0**26
            return (high + (second >> 6).cast(wanted)) * 2.0**-53
        precision = FORMATS[wanted.name][1] + 1
        return (first >> (32 - precision)).cast(wanted) * 2.0**-precision

    # ---- distributions ----
    @classmethod
    def rand(
        cls,
        *shape: Any,
        device: str | None = None,
        dtype: DTypeLike | None = None,
        requires_grad: bool | None = None,
        contiguous: bool = True,
    ) -> Self:
        """Uniform in [0, 1)."""
        drawn = cls._uniform(to_shape(shape), Device.canonicalize(device), dtype)
        return _finished(drawn.contiguous() if contiguous else drawn, requires_grad)

    def rand_like(self, **kwargs: Any) -> Self:
        """Uniform in [0, 1), in the shape, dtype and place of self."""
        return type(self).rand(self.shape, **self._like(kwargs))

    @classmethod
    def randn(
        cls,
        *shape: Any,
        device: str | None = None,
        dtype: DTypeLike | None = None,
        requires_grad: bool | None = None,
    ) -> Self:
        """Normal, of mean 0 and variance 1 (Box-Muller)."""
        wanted = dtypes.default_float if dtype is None else to_dtype(dtype)
        if not dtypes.is_float(wanted):
            raise DtypeError(f"Normal random numbers are floats, not {wanted}.")
        first, second = cls._draw(to_shape(shape), Device.canonicalize(device))
        radius, angle = ((word >> 8).cast(dtypes.float32) * 2.0**-24 for word in (first, second))
        drawn = (-2 * (1 - radius).log()).sqrt() * (angle * (2 * math.pi)).cos()
        return _finished(drawn.cast(wanted).contiguous(), requires_grad)

    def randn_like(self, dtype: DTypeLike | None = None, **kwargs: Any) -> Self:
        """Normal, in the shape, dtype and place of self."""
        return type(self).randn(self.shape, **self._like(kwargs, dtype))

    @classmethod
    def randint(
        cls,
        *shape: Any,
        low: int = 0,
        high: int = 10,
        device: str | None = None,
        dtype: DTypeLike | None = None,
        requires_grad: bool | None = None,
    ) -> Self:
        """Integers in [low, high)."""
        wanted = dtypes.default_int if dtype is None else to_dtype(dtype)
        if not isinstance(low, int) or not isinstance(high, int):
            raise DtypeError(f"randint draws between integers, not {low!r} and {high!r}.")
        if not dtypes.is_int(wanted):
            raise DtypeError(f"randint draws integers, not {wanted}.")
        if not 0 < high - low <= 1 << 32:
            raise ShapeError(f"randint draws from 1 to 2**32 integers, not from [{low}, {high}).")
        first, _ = cls._draw(to_shape(shape), Device.canonicalize(device))
        within = first if high - low == 1 << 32 else first % (high - low)
        wide = wanted if wanted.bits >= 32 else dtypes.int32
        return _finished((within.cast(wide) + low).cast(wanted).contiguous(), requires_grad)

    @classmethod
    def uniform(
        cls,
        *shape: Any,
        low: float = 0.0,
        high: float = 1.0,
        device: str | None = None,
        dtype: DTypeLike | None = None,
        requires_grad: bool | None = None,
    ) -> Self:
        """Uniform in [low, high)."""
        drawn = cls._uniform(to_shape(shape), Device.canonicalize(device), dtype)
        return _finished((drawn * (high - low) + low).contiguous(), requires_grad)

    @classmethod
    def normal(
        cls, *shape: Any, mean: float = 0.0, std: float = 1.0, requires_grad: bool | None = None,
        **kwargs: Any,
    ) -> Self:
        """Normal, of the given mean and standard deviation."""
        return _finished(cls.randn(*shape, **kwargs) * std + mean, requires_grad)

    @classmethod
    def bernoulli(cls, *shape: Any, p: float = 0.5, **kwargs: Any) -> Self:
        """True with probability p."""
        return cls.rand(*shape, **kwargs) < p

    @classmethod
    def randperm(cls, n: int, device: str | None = None, dtype: DTypeLike | None = None) -> Self:
        """0 to n-1 in random order: the ranks of n random words, which takes n*n comparisons."""
        word = cls._draw((n,), Device.canonicalize(device))[0].contiguous()
        other, place = word.reshape((1, n)), word._iota(n)
        earlier = place.reshape((1, n)) < place.reshape((n, 1))
        rank = ((other < word.reshape((n, 1))) | (other.eq(word.reshape((n, 1))) & earlier)).sum(1)
        return rank.cast(dtypes.default_int if dtype is None else dtype)

    def multinomial(self, num_samples: int = 1, replacement: bool = False) -> Self:
        """`num_samples` positions along the last axis, drawn with probabilities like self.

        self: (n,) or (rows, n), not negative. Without replacement no position comes twice.
        """
        if self.ndim not in (1, 2) or num_samples < 1:
            raise ShapeError(f"multinomial cannot draw {num_samples} from the shape {self.shape}.")
        weights = self._float().detach()
        n = self._fixed(self.ndim - 1)
        if not replacement and num_samples > n:
            raise ShapeError(f"{num_samples} of {n} cannot be drawn without replacement.")
        if replacement or num_samples == 1:
            reached = weights.cumsum(-1).contiguous()
            shape = (*self.shape[:-1], num_samples)
            drawn = type(self).rand(*shape, device=self.device, dtype=weights.dtype)
            drawn = drawn * reached._part(self.ndim - 1, n - 1, n)
            passed = drawn.unsqueeze(-1) >= reached.unsqueeze(-2)
            return passed.sum(-1).minimum(n - 1)
        # The first of exponential arrivals whose rates are the weights.
        waits = -(1 - type(self).rand(*self.shape, device=self.device, dtype=weights.dtype)).log()
        return (weights / waits).contiguous().topk(num_samples)[1]

    def threefry(self, seed: Self) -> Self:
        """64 random bits for each counter in self under the key `seed`, both uint64."""
        if self.dtype is not dtypes.uint64 or seed.dtype is not dtypes.uint64:
            raise DtypeError(f"threefry takes uint64, not {self.dtype} and {seed.dtype}.")
        counter, key = (
            [(t >> shift).cast(dtypes.uint32) for shift in (0, 32)] for t in (self, seed)
        )
        low, high = (w.cast(dtypes.uint64) for w in _threefry(*key, *counter))
        return low | (high << 32)

    @classmethod
    def random_bits(cls, key: Self, counter: Self, num: int) -> Self:
        """`num` random words, uint32, that `key` and `counter`, of two words each, determine.

        The counter under the key gives the key of the draw, under which word i and word
        i + half, half being num/2 rounded up, are those of the counter (i, i + half).
        """
        if num < 0 or any(t.dtype is not dtypes.uint32 or t.shape != (2,) for t in (key, counter)):
            raise DtypeError(
                f"random_bits takes two uint32 each for key and counter and a number from 0, not "
                f"{key!r}, {counter!r} and {num}."
            )
        half = -(-num // 2)
        words = [t[i] for t in (key, counter) for i in range(2)]
        place = key._iota(half).cast(dtypes.uint32)
        low, high = _threefry(*_threefry(*words), place, place + half)
        return low.cat(high)._part(0, 0, num)

    # ---- how layers start ----
    @classmethod
    def scaled_uniform(cls, *shape: Any, **kwargs: Any) -> Self:
        """Uniform in ±1/sqrt(number of elements)."""
        bound = float(product(to_shape(shape))) ** -0.5  # type: ignore[arg-type]
        return cls.uniform(*shape, low=-bound, high=bound, **kwargs)

    @classmethod
    def glorot_uniform(cls, *shape: Any, **kwargs: Any) -> Self:
        """Uniform in ±sqrt(6 / (inputs + outputs))."""
        extents = to_shape(shape)
        bound = math.sqrt(6 / (_fan_out(extents) + _fan_in(extents)))
        return cls.uniform(*shape, low=-bound, high=bound, **kwargs)

    @classmethod
    def kaiming_uniform(cls, *shape: Any, a: float = 0.01, **kwargs: Any) -> Self:
        """Uniform in ±sqrt(6 / ((1 + a*a) * inputs))."""
        bound = math.sqrt(6 / ((1 + a * a) * _fan_in(to_shape(shape))))
        return cls.uniform(*shape, low=-bound, high=bound, **kwargs)

    @classmethod
    def kaiming_normal(cls, *shape: Any, a: float = 0.01, **kwargs: Any) -> Self:
        """Normal of standard deviation sqrt(2 / ((1 + a*a) * inputs))."""
        std = math.sqrt(2 / ((1 + a * a) * _fan_in(to_shape(shape))))
        return cls.normal(*shape, mean=0.0, std=std, **kwargs)

    def dropout(self, p: float = 0.5) -> Self:
        """In training, each element 0 with probability p, the others scaled by 1/(1-p)."""
        if not 0 <= p <= 1:
            raise ShapeError(f"dropout needs a probability in [0, 1], not {p}.")
        if not Random.training or p == 0:
            return self
        if p == 1:
            return self.zeros_like()
        drawn = type(self)._uniform(self.shape, self.device, dtypes.float32)
        return (drawn >= p).contiguous().where(self, 0) / (1 - p)


def _fan_in(shape: tuple[Any, ...]) -> int:
    return int(product(shape[1:])) or 1  # type: ignore[arg-type]


def _fan_out(shape: tuple[Any, ...]) -> int:
    return int(shape[0]) if shape else 1


def _finished(drawn: T, requires_grad: bool | None) -> T:
    return drawn if requires_grad is None else drawn.requires_grad_(requires_grad)


def _threefry(key0: T, key1: T, x0: T, x1: T) -> tuple[T, T]:
    """threefry2x32 of the counter words (x0, x1) under the key words."""
    keys = (key0, key1, key0 ^ key1 ^ KEY_PARITY)
    x0, x1 = x0 + keys[0], x1 + keys[1]
    for block in range(ROUNDS // 4):
        for rotation in ROTATIONS[block % 2]:
            x0 = x0 + x1
            x1 = ((x1 << rotation) | (x1 >> (32 - rotation))) ^ x0
        x0 = x0 + keys[(block + 1) % 3]
        x1 = x1 + keys[(block + 2) % 3] + (block + 1)
    return x0, x1
