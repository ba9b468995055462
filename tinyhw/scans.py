"""Running functions along an axis: element i combines elements 0 to i.

A window over the padded axis gives the whole prefix of each element, which costs the square of the
extent; above a block's length the blocks run first, then their totals.
"""

from __future__ import annotations

import math
from typing import Self

from compiler.dtype import ConstType, dtypes
from compiler.ir import Op
from tinyhw.bits import Bits
from tinyhw.core import DTypeLike, also_named, sum_dtype, to_dtype

BLOCK = 256  # a running function within a block costs its square


class Scans(Bits):
    """Running sums, products and logarithms of sums."""

    __slots__ = ()

    @also_named(dim="axis")
    def cumsum(self, axis: int = 0, dtype: DTypeLike | None = None) -> Self:
        """The sum of the elements up to each one along `axis`."""
        wanted = sum_dtype(self.dtype) if dtype is None else to_dtype(dtype)
        return self.cast(wanted)._scan(Op.ADD, axis)

    @also_named(dim="axis")
    def cumprod(self, axis: int, dtype: DTypeLike | None = None) -> Self:
        """The product of the elements up to each one along `axis`."""
        wanted = sum_dtype(self.dtype) if dtype is None else to_dtype(dtype)
        return self.cast(wanted)._scan(Op.MUL, axis)

    def _scan(self, op: Op, axis: int) -> Self:
        """`op` of the elements up to each one along `axis`."""
        axis = self._axis(axis)
        if not self.ndim or self.numel() == 0:
            return self
        return self.transpose(axis, -1)._running(op).transpose(axis, -1)

    def _running(self, op: Op) -> Self:
        """`op` running along the last axis."""
        n = self._fixed(self.ndim - 1)
        neutral = self._neutral(op)
        if n <= BLOCK:
            windows = self._prefixes(neutral)
            return windows._derive(windows._node.reduce(op, (self.ndim,))).squeeze(-1)
        within = self._blocks_of(BLOCK, neutral)._running(op)
        before = within._last_of_each()._running(op)._one_later(neutral).unsqueeze(-1)
        if op is Op.MAX:
            whole = within.maximum(before)
        else:
            whole = within * before if op is Op.MUL else within + before
        return whole._first_of_blocks(n)

    def _neutral(self, op: Op) -> ConstType:
        return {Op.ADD: 0, Op.MUL: 1, Op.MAX: self.dtype.min}[op]

    # ---- prefixes and blocks of the last axis ----
    def _prefixes(self, neutral: ConstType) -> Self:
        """(..., n) as (..., n, n): the elements up to each one, behind as many neutral ones."""
        n = self._fixed(self.ndim - 1)
        keep: list[tuple[int, int] | None] = [None] * (self.ndim - 1)
        padded = self.pad([*keep, (n - 1, 0)], value=neutral).unsqueeze(-1)
        return padded.windows((self.ndim - 1,), (n,), (self.ndim,), (1,), (1,))

    def _blocks_of(self, size: int, neutral: ConstType) -> Self:
        """(..., n) as (..., blocks, size), the last block filled up."""
        n = self._fixed(self.ndim - 1)
        blocks = -(-n // size)
        keep: list[tuple[int, int] | None] = [None] * (self.ndim - 1)
        return self.pad([*keep, (0, blocks * size - n)], value=neutral).unflatten(
            -1, (blocks, size)
        )

    def _last_of_each(self) -> Self:
        axis = self.ndim - 1
        n = self._fixed(axis)
        return self._part(axis, n - 1, n).squeeze(axis).contiguous()

    def _one_later(self, neutral: ConstType) -> Self:
        """Every element of the last axis at the next position, a neutral one at the first."""
        keep: list[tuple[int, int] | None] = [None] * (self.ndim - 1)
        return self.pad([*keep, (1, -1)], value=neutral)

    def _first_of_blocks(self, n: int) -> Self:
        """(..., blocks, size) as (..., n)."""
        flat = self.flatten(-2)
        return flat._part(flat.ndim - 1, 0, n)

    # ---- logarithms of sums ----
    @also_named(dim="axis")
    def logcumsumexp(self, axis: int = 0) -> Self:
        """log(cumsum(exp(self))), which never overflows."""
        axis = self._axis(axis)
        x = self._wide_float()
        if not self.ndim or self.numel() == 0:
            return x.cast(self._float().dtype)
        result = x.transpose(axis, -1)._running_logsumexp().transpose(axis, -1)
        return result.cast(self._float().dtype)

    def _running_logsumexp(self) -> Self:
        n = self._fixed(self.ndim - 1)
        if n > BLOCK:
            within = self._blocks_of(BLOCK, -math.inf)._running_logsumexp()
            before = within._last_of_each()._running_logsumexp()._one_later(-math.inf)
            return within.logaddexp(before.unsqueeze(-1))._first_of_blocks(n)
        most = self.detach()._running(Op.MAX)
        most = most.isinf().where(0, most)
        powers = (self._prefixes(-math.inf) - most.unsqueeze(-1)).exp()
        return powers.sum(-1).log() + most

    # ---- differences ----
    def diff(self, n: int = 1, dim: int = -1) -> Self:
        """The n-th differences of neighbours along `dim`."""
        axis = self._axis(dim)
        x = self
        for _ in range(n):
            extent = x._fixed(axis)
            after = x._part(axis, min(1, extent), extent)
            before = x._part(axis, 0, max(0, extent - 1))
            x = after.ne(before) if x.dtype is dtypes.bool else after - before
        return x
