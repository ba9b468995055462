"""Linear algebra: products by name, factorisations, inverses, norms.

Matrices are the last two axes, further ones are a batch. Factorisations take one step for each
column, so they are for matrices of up to some dozens of rows. Steps that choose (pivots, rotations)
run without gradient; their result then enters an expression that equals it and whose gradient is
that of the inverse, the determinant or the singular values.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Self

from compiler.dtype import ConstType
from tinyhw.core import Axis
from tinyhw.errors import DtypeError, ShapeError
from tinyhw.hashing import Hashing

SWEEPS = {32: 8, 64: 12}  # of Jacobi rotations, which converge quadratically


class LinearAlgebra(Hashing):
    """What numpy.linalg and torch.linalg do with matrices."""

    __slots__ = ()

    def _matrix(self, operation: str, square: bool = False) -> Self:
        """self as a float matrix of at least 32 bits."""
        if self.ndim < 2 or (square and self.shape[-1] != self.shape[-2]):
            kind = "square matrices" if square else "matrices"
            raise ShapeError(f"{operation} takes {kind}, not the shape {self.shape}.")
        return self._wide_float()

    def _extents(self) -> tuple[int, int]:
        return self._fixed(self.ndim - 2), self._fixed(self.ndim - 1)

    # ---- products ----
    def outer(self, other: Self) -> Self:
        """Every element of one vector times every one of another."""
        if self.ndim != 1 or other.ndim != 1:
            raise ShapeError(f"outer takes vectors, not {self.shape} and {other.shape}.")
        return self.unsqueeze(-1) * other

    def inner(self, other: Self) -> Self:
        """The sums of products over the last axes of both."""
        if not self.ndim or not other.ndim:
            return self * other
        return self.tensordot(other, ([-1], [-1]))

    def tensordot(self, other: Self, dims: int | Sequence[Sequence[int]] = 2) -> Self:
        """The sum of products over so many last and first axes, or over the given pairs."""
        if isinstance(dims, int):
            a_axes, b_axes = list(range(self.ndim - dims, self.ndim)), list(range(dims))
        else:
            a_axes = [self._axis(a) for a in dims[0]]
            b_axes = [other._axis(b) for b in dims[1]]
        a_rest = [a for a in range(self.ndim) if a not in a_axes]
        b_rest = [b for b in range(other.ndim) if b not in b_axes]
        if [self.shape[a] for a in a_axes] != [other.shape[b] for b in b_axes]:
            raise ShapeError(f"tensordot over {dims} of {self.shape} and {other.shape} do not fit.")
        shape = (*(self.shape[a] for a in a_rest), *(other.shape[b] for b in b_rest))
        count, rows, columns = (
            math.prod(t._fixed(a) for a in axes)
            for t, axes in ((self, a_axes), (self, a_rest), (other, b_rest))
        )
        left = self.permute((*a_rest, *a_axes)).reshape((rows, count))
        right = other.permute((*b_axes, *b_rest)).reshape((count, columns))
        return left.dot(right).reshape(shape)

    def addmm(
        self, mat1: Self, mat2: Self, beta: ConstType = 1, alpha: ConstType = 1
    ) -> Self:
        """beta*self + alpha*(mat1 @ mat2)."""
        product = mat1.matmul(mat2)
        product = product if alpha == 1 else product * alpha
        return product if beta == 0 else (self if beta == 1 else self * beta) + product

    def kron(self, other: Self) -> Self:
        """Each element times all of `other`, as one block of the result."""
        rank = max(self.ndim, other.ndim)
        a, b = (t.reshape((*(1,) * (rank - t.ndim), *t.shape)) for t in (self, other))
        wide = a.reshape(tuple(n for extent in a.shape for n in (extent, 1)))
        blocks = wide * b.reshape(tuple(n for extent in b.shape for n in (1, extent)))
        return blocks.reshape(
            tuple(a._fixed(axis) * b._fixed(axis) for axis in range(rank))
        )

    def cross(self, other: Self, dim: int = -1) -> Self:
        """The vector product along `dim`, of extent 3."""
        axis = self._axis(dim)
        if self.shape[axis] != 3 or other.shape[axis] != 3:
            raise ShapeError(f"cross takes vectors of 3, not {self.shape} and {other.shape}.")
        a1, a2, b1, b2 = (
            t.roll(shift, axis) for t in (self, other) for shift in (-1, -2)
        )
        return a1 * b2 - a2 * b1

    def trace(self) -> Self:
        """The sum of the diagonal."""
        if self.ndim != 2:
            raise ShapeError(f"trace takes a matrix, not the shape {self.shape}.")
        return self.diagonal().sum()

    def matrix_power(self, n: int) -> Self:
        """The matrix times itself, n times; of its inverse for a negative n."""
        x = self._matrix("matrix_power", square=True)
        if n < 0:
            return x.inverse().matrix_power(-n)
        if n == 0:
            return x._identity(x._extents()[0])._broadcast_to(x.shape)
        half = x if n == 1 else x.matrix_power(n // 2)
        power = half if n == 1 else half.matmul(half)
        return power.matmul(x) if n > 1 and n % 2 else power

    def _identity(self, n: int) -> Self:
        place = self._iota(n)
        return place.unsqueeze(-1).eq(place).cast(self.dtype)

    # ---- norms and distances ----
    def norm(self, p: float | str = 2.0, dim: Axis = None, keepdim: bool = False) -> Self:
        """The p-norm of the elements along `dim` (of all for None); "fro" is the 2-norm."""
        order = 2.0 if p == "fro" else p
        if isinstance(order, str):
            raise DtypeError(f"norm knows numbers and 'fro', not {p!r}.")
        size = self._float().abs()
        if order == math.inf:
            return size.max(dim, keepdim)
        if order == -math.inf:
            return size.min(dim, keepdim)
        if order == 0:
            return size.ne(0).cast(size.dtype).sum(dim, keepdim)
        if order == 1:
            return size.sum(dim, keepdim)
        if order == 2:
            squares = size.square().sum(dim, keepdim)
            zero = squares.eq(0)  # where the slope is 0 rather than infinite
            return zero.where(0, zero.where(1, squares).sqrt())
        return size.pow(order).sum(dim, keepdim).pow(1 / order)

    def cosine_similarity(self, other: Self, dim: int = 1, eps: float = 1e-8) -> Self:
        """The cosine of the angle between vectors along `dim`, whose lengths are at least eps."""
        product = (self * other).sum(dim)
        return product / (self.norm(2, dim).maximum(eps) * other.norm(2, dim).maximum(eps))

    def pairwise_distance(
        self, other: Self, p: float = 2.0, eps: float = 1e-6, keepdim: bool = False
    ) -> Self:
        """The p-norm of the difference (plus eps) along the last axis."""
        return (self - other + eps).norm(p, -1, keepdim)

    def cdist(self, other: Self, p: float = 2.0) -> Self:
        """The p-norm of the difference of each row of self and each of `other`."""
        return (self.unsqueeze(-2) - other.unsqueeze(-3)).norm(p, -1)

    # ---- factorisations ----
    def qr(self, mode: str = "complete") -> tuple[Self, Self]:
        """An orthogonal and an upper triangular matrix whose product is self (Householder).

        mode: "complete", or "reduced" to the first min(rows, columns) columns and rows of them.
        """
        if mode not in ("complete", "reduced"):
            raise ShapeError(f"qr's mode is 'complete' or 'reduced', not {mode!r}.")
        upper = self._matrix("qr")
        rows, columns = upper._extents()
        place = upper._iota(rows)
        orthogonal = upper._identity(rows)._broadcast_to((*upper.shape[:-1], rows))
        for k in range(min(rows - 1, columns)):
            column = (place >= k).where(upper.select(-1, k), 0)
            first = column.select(-1, k).unsqueeze(-1)
            rest = (place > k).where(column, 0)
            done = rest.square().sum(-1, keepdim=True).eq(0)
            size = done.where(1, column.square().sum(-1, keepdim=True)).sqrt()
            v = column + place.eq(k).where((first < 0).where(-size, size), 0)
            scale = done.where(0, 2 / done.where(1, v.square().sum(-1, keepdim=True)))
            scaled = (v * scale).unsqueeze(-2)  # a reflection: 1 - v scaled^T
            upper = upper - v.unsqueeze(-1) * scaled.matmul(upper)
            orthogonal = orthogonal - orthogonal.matmul(v.unsqueeze(-1)) * scaled
            upper, orthogonal = upper.contiguous(), orthogonal.contiguous()
        upper = upper.triu()
        if mode == "reduced" and rows > columns:
            orthogonal = orthogonal._part(upper.ndim - 1, 0, columns)
            upper = upper._part(upper.ndim - 2, 0, columns)
        kind = self._float().dtype
        return orthogonal.cast(kind), upper.cast(kind)

    def svd(self, full_matrices: bool = True) -> tuple[Self, Self, Self]:
        """U, S and V^T with self = U * S @ V^T: S descends, U and V are orthogonal (Jacobi).

        Gradients are those of distinct singular values, none of them 0.
        """
        x = self._matrix("svd")
        rows, columns = x._extents()
        if rows < columns:
            u, s, v = x.transpose(-1, -2).svd(full_matrices)
            return v.transpose(-1, -2), s, u.transpose(-1, -2)
        u, s, v = x.detach()._jacobi()
        d = x - x.detach()  # 0, with the gradient of self
        along = u.transpose(-1, -2).matmul(d).matmul(v)
        gaps = s.unsqueeze(-2).square() - s.unsqueeze(-1).square()
        gaps = gaps.eq(0).where(0, 1 / gaps.eq(0).where(1, gaps))
        row, column = s.unsqueeze(-1), s.unsqueeze(-2)
        turned = along.transpose(-1, -2)
        outside = d.matmul(v) - u.matmul(along)
        new_u = u + u.matmul(gaps * (along * column + row * turned))
        new_u = new_u + outside / s.eq(0).where(1, s).unsqueeze(-2)
        new_v = v + v.matmul(gaps * (row * along + turned * column))
        s = s + along.diagonal(0, -2, -1)
        if full_matrices and rows > columns:
            rest = u.qr()[0]._part(u.ndim - 1, columns, rows)
            new_u = new_u.cat(rest, dim=-1)
        kind = self._float().dtype
        return new_u.cast(kind), s.cast(kind), new_v.transpose(-1, -2).cast(kind)

    def _jacobi(self) -> tuple[Self, Self, Self]:
        """U, S and V of rows >= columns, by rotating pairs of columns until all are orthogonal.

        In each round the columns meet in pairs; between rounds all but the first move on by one
        place, so that after a sweep each has met every other.
        """
        rows, columns = self._extents()
        half = (columns + 1) // 2
        keep: list[tuple[int, int] | None] = [None] * (self.ndim - 2)
        identity = self._identity(columns)._broadcast_to((*self.shape[:-2], columns, columns))
        both = self.cat(identity, dim=-2).pad([*keep, None, (0, 2 * half - columns)])
        for _ in range(SWEEPS[self.dtype.bits] * (2 * half - 1)):
            both = both._rotated(rows, half).contiguous()
        upper, v = both.split([rows, columns], -2)
        s = upper.square().sum(-2).sqrt()
        s, order = s.sort(-1, descending=True)
        wide = order.unsqueeze(-2)
        upper, v = (
            t.gather(-1, wide._broadcast_to((*t.shape[:-1], 2 * half))).contiguous()
            for t in (upper, v)
        )
        last = self.ndim - 1
        upper, v = upper._part(last, 0, columns), v._part(last, 0, columns)
        s = s._part(s.ndim - 1, 0, columns).contiguous()
        zero = s.unsqueeze(-2) <= s.max(-1, keepdim=True).unsqueeze(-2) * 2.0 ** (
            -20 if self.dtype.bits == 32 else -48
        )
        u = zero.where(0, upper / zero.where(1, s.unsqueeze(-2))).contiguous()
        return zero.where(u.qr("reduced")[0], u).contiguous(), s, v

    def _rotated(self, rows: int, half: int) -> Self:
        """One round: the columns i and half + i made orthogonal in the first rows, and moved on."""
        p, q = self.split(half, -1)
        a, b = (t._part(self.ndim - 2, 0, rows) for t in (p, q))
        cross = (a * b).sum(-2, keepdim=True)
        zero = cross.eq(0)
        ratio = (b.square() - a.square()).sum(-2, keepdim=True) / (2 * zero.where(1, cross))
        tangent = (ratio < 0).where(-1.0, 1.0) / (ratio.abs() + (1 + ratio.square()).sqrt())
        tangent = zero.where(0, tangent)
        cosine = (1 + tangent.square()).rsqrt()
        sine = cosine * tangent
        p, q = p * cosine - q * sine, p * sine + q * cosine
        if half == 1:
            return p.cat(q, dim=-1)
        axis = self.ndim - 1
        first = p._part(axis, 0, 1)
        return first.cat(
            q._part(axis, 0, 1), p._part(axis, 1, half - 1), q._part(axis, 1, half),
            p._part(axis, half - 1, half), dim=-1,
        )

    def cholesky(self, upper: bool = False) -> Self:
        """The lower triangular L with L @ L^T = self, which is symmetric and positive definite."""
        x = self._matrix("cholesky", square=True)
        n = x._extents()[0]
        x = (x + x.transpose(-1, -2)) * 0.5
        place = x._iota(n)
        lower = x * 0
        for k in range(n):
            row = lower.select(-2, k).unsqueeze(-1)
            column = x.select(-1, k) - lower.matmul(row).squeeze(-1)
            pivot = column.select(-1, k).unsqueeze(-1)
            column = (place >= k).where(column / pivot.sqrt(), 0)
            lower = (lower + place.eq(k).where(column.unsqueeze(-1), 0)).contiguous()
        lower = lower.cast(self._float().dtype)
        return lower.transpose(-1, -2) if upper else lower

    # ---- inverses ----
    def _eliminated(self) -> tuple[Self, Self, Self]:
        """(inverse, sign of the determinant, logarithm of its size), by Gauss and Jordan.

        The greatest element of a column is its pivot. Of a singular matrix the inverse is NaN.
        """
        x = self.detach()
        n = x._extents()[0]
        row = x._iota(n)
        both = x.cat(x._identity(n)._broadcast_to(x.shape), dim=-1)
        sign, size = both.select(-1, 0).sum(-1) * 0 + 1, both.select(-1, 0).sum(-1) * 0
        for k in range(n):
            column = (row >= k).where(both.select(-1, k).abs(), -1)
            best = column.argmax(-1, keepdim=True)
            swapped = row.eq(k).where(best, row.eq(best).where(k, row)).unsqueeze(-1)
            both = both.gather(-2, swapped._broadcast_to(both.shape)).contiguous()
            pivot = both.select(-2, k).select(-1, k)
            sign = sign * best.squeeze(-1).eq(k).where(1, -1) * pivot.sign()
            size = size + pivot.abs().log()
            line = both.select(-2, k).unsqueeze(-2) / pivot.unsqueeze(-1).unsqueeze(-1)
            here = row.eq(k).unsqueeze(-1)
            others = here.where(0, both.select(-1, k).unsqueeze(-1))
            both = here.where(line, both - others * line).contiguous()
        return both._part(x.ndim - 1, n, 2 * n), sign, size

    def inverse(self) -> Self:
        """The inverse of square matrices; NaN where there is none."""
        x = self._matrix("inverse", square=True)
        inverse = x._eliminated()[0].contiguous()
        # One step of Newton's: its value is as good or better, its gradient that of the inverse.
        return (2 * inverse - inverse.matmul(x).matmul(inverse)).cast(self._float().dtype)

    def solve(self, other: Self) -> Self:
        """The x with self @ x = other; `other` is a matrix, or a vector."""
        if other.ndim == 1:
            return self.solve(other.unsqueeze(-1)).squeeze(-1)
        return self.inverse().matmul(other)

    def slogdet(self) -> tuple[Self, Self]:
        """The sign of the determinant and the logarithm of its size."""
        x = self._matrix("slogdet", square=True)
        inverse, sign, size = x._eliminated()
        slope = inverse.contiguous().transpose(-1, -2) * (x - x.detach())
        kind = self._float().dtype
        return sign.cast(kind), (size + slope.sum((-2, -1))).cast(kind)

    def logdet(self) -> Self:
        """The logarithm of the determinant, NaN if that is negative."""
        sign, size = self.slogdet()
        return sign.eq(0).where(-math.inf, (sign < 0).where(math.nan, size))

    def det(self) -> Self:
        """The determinant of square matrices."""
        sign, size = self.slogdet()
        return sign.eq(0).where(0, sign * sign.eq(0).where(0, size).exp())

    def pinverse(self, rcond: float = 1e-15) -> Self:
        """The pseudoinverse; singular values up to rcond times the greatest count as 0."""
        u, s, v = self.svd(full_matrices=False)
        small = s <= s.max(-1, keepdim=True) * rcond
        inverse = small.where(0, 1 / small.where(1, s))
        return (v.transpose(-1, -2) * inverse.unsqueeze(-2)).matmul(u.transpose(-1, -2))

    def newton_schulz(
        self, steps: int, params: Sequence[float], eps: float = 1e-7
    ) -> Self:
        """The odd polynomial x*params[0] + x^3*params[1] + ... applied `steps` times.

        x is first divided by its norm; powers are those of x @ x^T, so that the singular values
        change and the singular vectors do not.
        """
        x = self._matrix("newton_schulz")
        rows, columns = x._extents()
        if rows > columns:
            return self.transpose(-1, -2).newton_schulz(steps, params, eps).transpose(-1, -2)
        x = x / (x.norm(2, (-2, -1), keepdim=True) + eps)
        for _ in range(steps):
            square = x.matmul(x.transpose(-1, -2))
            term, total = x, x * params[0]
            for factor in params[1:]:
                term = square.matmul(term)
                total = total + term * factor
            x = total.contiguous()
        return x.cast(self._float().dtype)
