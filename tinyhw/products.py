"""Matrix products and convolutions: all are a product of two views and one sum.

A convolution multiplies sliding windows of its input with the weight, so it needs no op of its
own, and neither does its gradient.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Self, TypeVar

from compiler.dtype import DType, dtypes, least_upper_dtype
from tinyhw.core import DTypeLike, sum_dtype, to_dtype
from tinyhw.errors import ShapeError
from tinyhw.searching import Searching

Sizes = int | Sequence[int]
FIRST_DOT = 0xE000  # names the axes of an einsum's ellipsis: characters that no formula has
T = TypeVar("T", bound="Products")


class Products(Searching):
    """Linear maps, and windows over images."""

    __slots__ = ()

    # ---- matrices ----
    def dot(self, w: Self, dtype: DTypeLike | None = None) -> Self:
        """The sum of products over the last axis of self and the last but one of w.

        (..., m, k) by (..., k, n) gives (..., m, n), leading axes broadcasting; vectors lack m
        or n. `dtype` is the type that the sum is taken and returned in.
        """
        x = self
        if not (x.ndim and w.ndim):
            raise ShapeError(f"Both sides of a matrix product need an axis: {x.shape}, {w.shape}.")
        inner = -min(w.ndim, 2)
        if x.shape[-1] != w.shape[inner]:
            raise ShapeError(
                f"Cannot multiply {x.shape} with {w.shape}: the last extent {x.shape[-1]} is not "
                f"{w.shape[inner]}."
            )
        if x.ndim > 1 and w.ndim > 1:
            x = x.unsqueeze(-2)
        wide = w.transpose(-1, inner) if w.ndim > 1 else w
        if self.ndim > 1 and w.ndim > 1:
            wide = wide.unsqueeze(-3)
        return _sum_of_products(x, wide, (-1,), dtype)

    def matmul(self, x: Self, reverse: bool = False, dtype: DTypeLike | None = None) -> Self:
        """self @ x."""
        return x.dot(self, dtype) if reverse else self.dot(x, dtype)

    def __matmul__(self, x: Self) -> Self:
        return self.matmul(x)

    def __rmatmul__(self, x: Self) -> Self:
        return self.matmul(x, reverse=True)

    def linear(
        self, weight: Self, bias: Self | None = None, dtype: DTypeLike | None = None
    ) -> Self:
        """self @ weight + bias, all in `dtype` if given; a weight of one axis scales."""
        if dtype is not None:
            return self.cast(dtype).linear(
                weight.cast(dtype), None if bias is None else bias.cast(dtype)
            )
        x = self * weight if weight.ndim == 1 else self.dot(weight)
        return x if bias is None else x + bias

    @classmethod
    def einsum(
        cls, formula: str, *operands: Self | Sequence[Self], dtype: DTypeLike | None = None
    ) -> Self:
        """The sum of products that `formula` names: "ij,jk->ik"; "..." stands for further axes."""
        given: list[Any] = [
            x for each_ in operands for x in (each_ if isinstance(each_, list | tuple) else [each_])
        ]
        inputs, arrow, output = formula.replace(" ", "").partition("->")
        terms = inputs.split(",")
        if len(terms) != len(given):
            raise ShapeError(f"einsum {formula!r} names {len(terms)} of {len(given)} tensors.")
        spare = [x.ndim - len(t.replace("...", "")) for t, x in zip(terms, given, strict=True)]
        most = max([n for t, n in zip(terms, spare, strict=True) if "..." in t], default=0)
        dots = "".join(chr(FIRST_DOT + i) for i in range(most))
        terms = [
            t.replace("...", dots[most - max(n, 0) :]) for t, n in zip(terms, spare, strict=True)
        ]
        named = "".join(terms)
        letters = sorted(set(named))
        if not arrow:
            output = "..." + "".join(
                c for c in letters if named.count(c) == 1 and c not in dots
            )
        output = output.replace("...", dots)
        readable = all(c.isalpha() or c in dots for c in letters)
        if not readable or not set(output) <= set(letters) or len(set(output)) != len(output):
            raise ShapeError(f"einsum cannot read the formula {formula!r}.")
        kind = least_upper_dtype(*(x.dtype for x in given)) if dtype is None else to_dtype(dtype)
        wide = _accumulator(kind) if dtype is None else kind
        result: Any = None
        for term, x in zip(terms, given, strict=True):
            aligned = x.cast(wide)._aligned(term, letters, formula)
            result = aligned if result is None else result * aligned
        summed = tuple(i for i, c in enumerate(letters) if c not in output)
        total = result.sum(summed, dtype=wide) if summed else result
        kept = [c for c in letters if c in output]
        ordered = total.permute(tuple(kept.index(c) for c in output))
        return ordered if not dtypes.is_float(kind) else ordered.cast(kind)  # type: ignore[no-any-return]

    def _aligned(self, term: str, letters: list[str], formula: str) -> Self:
        """Axes named by `term` in the order of `letters`, with 1 for the others."""
        if len(term) != self.ndim:
            raise ShapeError(f"einsum {formula!r} does not name the axes of {self.shape}.")
        x = self
        for c in sorted(set(term)):
            while term.count(c) > 1:
                a, b = term.index(c), term.rindex(c)
                if x.shape[a] != x.shape[b]:
                    raise ShapeError(f"einsum {formula!r} takes a diagonal of {self.shape}.")
                x = x.diagonal(0, a, b).movedim(-1, a)
                term = term[:b] + term[b + 1 :]
        x = x.permute(tuple(term.index(c) for c in sorted(term)))
        shape = iter(x.shape)
        return x.reshape(tuple(next(shape) if c in term else 1 for c in letters))

    # ---- windows over the last axes ----
    def pool_windows(self, kernel: Sequence[int], stride: Sizes, dilation: Sizes) -> Self:
        """Sliding windows over the last axes: (..., out..., kernel...)."""
        rank = len(kernel)
        strides, dilations = each(stride, rank, "stride"), each(dilation, rank, "dilation")
        _check_windows(self.shape[self.ndim - rank :], kernel, strides, dilations)
        x = self.reshape((*self.shape, *(1,) * rank))
        axes = range(self.ndim - rank, self.ndim)
        return x.windows(axes, kernel, range(self.ndim, self.ndim + rank), strides, dilations)

    def conv2d(
        self,
        weight: Self,
        bias: Self | None = None,
        groups: int = 1,
        stride: Sizes = 1,
        dilation: Sizes = 1,
        padding: Sizes | str = 0,
        dtype: DTypeLike | None = None,
    ) -> Self:
        """Cross-correlation over as many axes as the weight has beyond two.

        self: (batch, groups*cin, *spatial); weight: (cout, cin, *kernel); bias: (cout,).
        padding: one amount, one for each axis, (before, after) pairs starting at the last, "valid"
        for none or "same" for what keeps the extents at a stride of 1.
        """
        rank = weight.ndim - 2
        if self.ndim != weight.ndim or rank < 1:
            raise ShapeError(
                f"conv2d of {self.shape} with a weight of {weight.shape}: they need as many axes, "
                "at least 3."
            )
        kernel = [weight._fixed(axis) for axis in range(2, weight.ndim)]
        cout, cin = weight._fixed(0), weight._fixed(1)
        if self.shape[1] != groups * cin or cout % groups:
            raise ShapeError(
                f"conv2d of {self.shape} with a weight of {weight.shape} in {groups} groups: it "
                f"needs {groups * cin} input channels, and output channels that divide."
            )
        strides, dilations = each(stride, rank, "stride"), each(dilation, rank, "dilation")
        if isinstance(padding, str):
            padding = named_padding(padding, kernel, strides, dilations)
        x = self.pad(_padding(padding, rank))
        _check_windows(x.shape[2:], kernel, strides, dilations)
        ones = (1,) * rank
        x = x.reshape((x.shape[0], groups, 1, cin, *x.shape[2:], *ones))
        axes, within = range(4, 4 + rank), range(4 + rank, 4 + 2 * rank)
        x = x.windows(axes, kernel, within, strides, dilations)
        w = weight.reshape((1, groups, cout // groups, cin, *ones, *kernel))
        y = _sum_of_products(x, w, (3, *within), dtype)
        y = y.reshape((x.shape[0], cout, *x.shape[4 : 4 + rank]))
        return y if bias is None else y + bias.reshape((1, cout, *ones))

    def conv_transpose2d(
        self,
        weight: Self,
        bias: Self | None = None,
        groups: int = 1,
        stride: Sizes = 1,
        dilation: Sizes = 1,
        padding: Sizes = 0,
        output_padding: Sizes = 0,
    ) -> Self:
        """The adjoint of conv2d; weight: (groups*cin, cout, *kernel)."""
        rank = weight.ndim - 2
        if self.ndim != weight.ndim or rank < 1 or self.shape[1] != weight.shape[0] or (
            weight._fixed(0) % groups
        ):
            raise ShapeError(
                f"conv_transpose2d of {self.shape} with a weight of {weight.shape} in {groups} "
                "groups: the weight's first extent is the number of channels, and divides."
            )
        kernel = [weight._fixed(axis) for axis in range(2, weight.ndim)]
        strides, dilations = each(stride, rank, "stride"), each(dilation, rank, "dilation")
        extra = each(output_padding, rank, "output_padding")
        w = weight.unflatten(0, (groups, -1)).transpose(1, 2)
        w = w.flip(tuple(range(3, w.ndim))).flatten(0, 1)
        x = self
        for axis, s in enumerate(strides, start=2):
            x = x._spread(axis, s)
        outer = [
            ((k - 1) * d - before, (k - 1) * d - after + more)
            for k, d, more, (before, after) in zip(
                kernel, dilations, extra, padding_pairs(padding, rank), strict=True
            )
        ]
        flat = [amount for pair in outer[::-1] for amount in pair]
        return x.conv2d(w, bias, groups, 1, dilation, flat)

    def _spread(self, axis: int, by: int) -> Self:
        """Elements of `axis` with by - 1 zeros between them."""
        if by == 1:
            return self
        n = self._fixed(axis)
        x = self.unsqueeze(axis + 1)
        x = x.pad([(0, by - 1) if a == axis + 1 else None for a in range(x.ndim)])
        x = x.flatten(axis, axis + 1)
        return x.shrink([(0, (n - 1) * by + 1) if a == axis else None for a in range(x.ndim)])


def _sum_of_products(a: T, b: T, axes: tuple[int, ...], dtype: DTypeLike | None) -> T:
    """The sum of a*b over `axes`. Half precision is multiplied and summed in float32."""
    result = least_upper_dtype(a.dtype, b.dtype)
    if dtype is not None:
        result = wide = to_dtype(dtype)
    else:
        wide = _accumulator(result)
        result = result if dtypes.is_float(result) else wide
    return (a.cast(wide) * b.cast(wide)).sum(axes, dtype=wide).cast(result)


def _accumulator(dtype: DType) -> DType:
    return dtypes.float32 if dtypes.is_float(dtype) and dtype.bits < 32 else sum_dtype(dtype)


def each(sizes: Sizes, rank: int | None, name: str) -> list[int]:
    """One number for each axis."""
    given = [sizes] * (rank or 1) if isinstance(sizes, int) else list(sizes)
    if (rank is not None and len(given) != rank) or not all(isinstance(n, int) for n in given):
        raise ShapeError(f"{name} is one integer or {rank} of them, not {sizes!r}.")
    if any(n < (0 if name == "output_padding" else 1) for n in given):
        raise ShapeError(f"{name} must be at least 1 along each axis, not {sizes!r}.")
    return given


def padding_pairs(padding: Sizes, rank: int) -> list[tuple[int, int]]:
    """(before, after) of each window axis, first axis first."""
    if isinstance(padding, int):
        return [(padding, padding)] * rank
    given = list(padding)
    if len(given) == rank:
        return [(p, p) for p in given]
    if len(given) == 2 * rank:
        return [(given[i], given[i + 1]) for i in range(0, 2 * rank, 2)][::-1]
    raise ShapeError(
        f"padding is one amount, {rank} or {2 * rank} for {rank} axes, not {tuple(given)}."
    )


def named_padding(
    padding: str, kernel: Sequence[int], stride: Sequence[int], dilation: Sequence[int]
) -> list[int]:
    """The amounts, last axis first, of "valid" or "same"."""
    if padding == "valid":
        return [0] * (2 * len(kernel))
    if padding != "same" or set(stride) != {1}:
        raise ShapeError(
            f"padding is numbers, 'valid', or 'same' at a stride of 1, not {padding!r}."
        )
    whole = [d * (k - 1) for d, k in zip(dilation, kernel, strict=True)][::-1]
    return [side for n in whole for side in (n // 2, n - n // 2)]


def _padding(padding: Sizes, rank: int) -> list[int]:
    """The flat form of a padding, last axis first."""
    return [amount for pair in padding_pairs(padding, rank)[::-1] for amount in pair]


def _check_windows(
    shape: Sequence[Any], kernel: Sequence[int], stride: Sequence[int], dilation: Sequence[int]
) -> None:
    for n, k, d in zip(shape, kernel, dilation, strict=True):
        if isinstance(n, int) and (k - 1) * d + 1 > n:
            raise ShapeError(
                f"A window of {k} elements, {d} apart, does not fit into an axis of {n}."
            )
