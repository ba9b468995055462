"""Second names: what PyTorch (and tinygrad) call otherwise, and small compositions they have.

Where the two libraries disagree about one name, it does what tinygrad's does: `max(axis)` gives
values only, positions are int32, `gelu` approximates unless told.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any, Self

from compiler.dtype import ConstType, DType, dtypes
from compiler.ir import Extent
from compiler.symbolic import bounds
from tinyhw.attention import Attention
from tinyhw.core import Axis, DTypeLike, is_whole_storage, to_shape
from tinyhw.device import Device
from tinyhw.errors import DtypeError, GradientError, ShapeError


class Names(Attention):
    """Methods that say in another word what the layers below do."""

    __slots__ = ()

    # ---- one element ----
    absolute, negative = Attention.abs, Attention.neg
    subtract, multiply = Attention.sub, Attention.mul
    divide, true_divide = Attention.div, Attention.div
    floor_divide, remainder = Attention.idiv, Attention.mod
    arcsin, arccos = Attention.asin, Attention.acos
    arctan, arctan2 = Attention.atan, Attention.atan2
    arcsinh, arccosh, arctanh = Attention.asinh, Attention.acosh, Attention.atanh
    fix, sgn = Attention.trunc, Attention.sign
    not_equal, less, greater = Attention.ne, Attention.__lt__, Attention.__gt__
    less_equal, greater_equal = Attention.__le__, Attention.__ge__
    lt, gt, le, ge = Attention.__lt__, Attention.__gt__, Attention.__le__, Attention.__ge__
    bitwise_left_shift, bitwise_right_shift = Attention.lshift, Attention.rshift
    expit, psi, gammaln = Attention.sigmoid, Attention.digamma, Attention.lgamma

    def positive(self) -> Self:
        """self."""
        return self

    def logical_xor(self, x: Self | ConstType) -> Self:
        """Where one of self and x is zero and the other is not."""
        return self.cast(dtypes.bool).ne(self._operand(x).cast(dtypes.bool))

    def clamp_min(self, min_: Self | ConstType) -> Self:
        """`clamp` from below."""
        return self.clamp(min_)

    def clamp_max(self, max_: Self | ConstType) -> Self:
        """`clamp` from above."""
        return self.clamp(None, max_)

    def fmax(self, other: Self | ConstType) -> Self:
        """The greater of self and other, of which one may be NaN."""
        a, b = self._operands(other)
        return a.isnan().where(b, b.isnan().where(a, a.maximum(b)))

    def fmin(self, other: Self | ConstType) -> Self:
        """The lesser of self and other, of which one may be NaN."""
        a, b = self._operands(other)
        return a.isnan().where(b, b.isnan().where(a, a.minimum(b)))

    def addcmul(self, tensor1: Self, tensor2: Self, value: ConstType = 1) -> Self:
        """self + value*tensor1*tensor2."""
        return self + tensor1 * tensor2 * value

    def addcdiv(self, tensor1: Self, tensor2: Self, value: ConstType = 1) -> Self:
        """self + value*tensor1/tensor2."""
        return self + tensor1 / tensor2 * value

    def isposinf(self) -> Self:
        """Where self is inf."""
        return self.isinf(detect_negative=False)

    def isneginf(self) -> Self:
        """Where self is -inf."""
        return self.isinf(detect_positive=False)

    def allclose(
        self, other: Self, rtol: float = 1e-05, atol: float = 1e-08, equal_nan: bool = False
    ) -> Self:
        """Whether all elements are close, as `isclose` says."""
        return self.isclose(other, rtol, atol, equal_nan).all()

    def equal(self, other: Self) -> bool:
        """Whether both have one shape and equal elements; reads them."""
        same: Any = self.shape == other.shape and self.eq(other).all()
        return same if isinstance(same, bool) else bool(same.item())

    def usum(self, *others: Self) -> Self:
        """self plus each of `others`."""
        total = self
        for other in others:
            total = total + other
        return total

    def uprod(self, *others: Self) -> Self:
        """self times each of `others`."""
        total = self
        for other in others:
            total = total * other
        return total

    def ufix(self, x: Self | ConstType) -> Self:
        """x as a tensor, a number in the type that it has beside self."""
        return self._operand(x)

    # ---- types ----
    def type_as(self, other: Self) -> Self:
        """In the type of another tensor."""
        return self.cast(other.dtype)

    def type(self, dtype: DTypeLike | None = None) -> Self | DType:
        """The element type, or a cast to another."""
        return self.dtype if dtype is None else self.cast(dtype)

    def byte(self) -> Self:
        """Cast to uint8."""
        return self.cast(dtypes.uint8)

    def char(self) -> Self:
        """Cast to int8."""
        return self.cast(dtypes.int8)

    @property
    def itemsize(self) -> int:
        """Bytes per element."""
        return self.element_size()

    def is_signed(self) -> bool:
        """Whether the element type has negative numbers."""
        return not dtypes.is_unsigned(self.dtype) and self.dtype is not dtypes.bool

    # ---- shapes ----
    swapaxes, swapdims, moveaxis = Attention.transpose, Attention.transpose, Attention.movedim
    split_with_sizes, broadcast_to = Attention.split, Attention.expand

    def dim(self) -> int:
        """The number of axes."""
        return self.ndim

    ndimension = dim

    def nelement(self) -> Extent:
        """The number of elements."""
        return self.numel()

    @property
    def max_shape(self) -> tuple[int, ...]:
        """The shape with the greatest value of each Variable."""
        return tuple(n if isinstance(n, int) else bounds(n)[1] for n in self.shape)

    def max_numel(self) -> int:
        """The number of elements of `max_shape`."""
        total = 1
        for extent in self.max_shape:
            total *= extent
        return total

    def is_contiguous(self) -> bool:
        """Whether the elements are storage in row-major order already."""
        return is_whole_storage(self.node)

    def t(self) -> Self:
        """A matrix transposed; a vector as it is."""
        if self.ndim > 2:
            raise ShapeError(f"t transposes a matrix, not the shape {self.shape}.")
        return self.transpose(0, 1) if self.ndim == 2 else self

    @property
    def mT(self) -> Self:  # noqa: N802  (torch's name)
        """The last two axes exchanged."""
        return self.transpose(-2, -1)

    def adjoint(self) -> Self:
        """The last two axes exchanged."""
        return self.transpose(-2, -1)

    def ravel(self) -> Self:
        """All elements in one axis."""
        return self.flatten()

    def tile(self, *repeats: Any) -> Self:
        """`repeat`, where missing counts in front are 1."""
        times = to_shape(repeats)
        return self.repeat((1,) * (self.ndim - len(times)) + times)

    def expand_as(self, other: Self) -> Self:
        """Repeated to the shape of another tensor."""
        return self.expand(other.shape)

    def view_as(self, other: Self) -> Self:
        """In the shape of another tensor."""
        return self.reshape(other.shape)

    reshape_as = view_as

    def sum_to_size(self, *size: Any) -> Self:
        """Summed over the axes that are not in `size`, or 1 there."""
        shape = to_shape(size)
        grown = (1,) * (self.ndim - len(shape)) + shape
        axes = tuple(a for a, n in enumerate(grown) if n == 1 and self.shape[a] != 1)
        return (self.sum(axes, keepdim=True) if axes else self).reshape(shape)

    def fliplr(self) -> Self:
        """The second axis in reverse."""
        return self.flip(1)

    def flipud(self) -> Self:
        """The first axis in reverse."""
        return self.flip(0)

    def hsplit(self, sections: int | Sequence[int]) -> tuple[Self, ...]:
        """`tensor_split` along the second axis, or the only one."""
        return self.tensor_split(sections, min(1, self.ndim - 1))

    def vsplit(self, sections: int | Sequence[int]) -> tuple[Self, ...]:
        """`tensor_split` along the first axis."""
        return self.tensor_split(sections, 0)

    def dsplit(self, sections: int | Sequence[int]) -> tuple[Self, ...]:
        """`tensor_split` along the third axis."""
        return self.tensor_split(sections, 2)

    # ---- reductions ----
    amax, amin = Attention.max, Attention.min

    def aminmax(self, dim: Axis = None, keepdim: bool = False) -> tuple[Self, Self]:
        """The least and the greatest element."""
        return self.min(dim, keepdim), self.max(dim, keepdim)

    def count_nonzero(self, dim: Axis = None) -> Self:
        """How many elements are not 0."""
        return self.cast(dtypes.bool).sum(dim)

    def nansum(self, dim: Axis = None, keepdim: bool = False) -> Self:
        """The sum of what is not NaN."""
        return self.isnan().where(0, self).sum(dim, keepdim)

    def nanmean(self, dim: Axis = None, keepdim: bool = False) -> Self:
        """The mean of what is not NaN."""
        count = self.isnan().logical_not().sum(dim, keepdim)
        return self.nansum(dim, keepdim) / count.cast(self.dtype)

    def dist(self, other: Self, p: float = 2.0) -> Self:
        """The p-norm of the difference."""
        return (self - other).norm(p)

    def cov(self, correction: int = 1) -> Self:
        """The covariances of the rows, each a variable."""
        x = self._float().reshape((1, -1)) if self.ndim < 2 else self._float()
        x = x - x.mean(1, keepdim=True)
        result = x.matmul(x.transpose(0, 1)) / (x._fixed(1) - correction)
        return result if self.ndim == 2 else result.reshape(())

    def corrcoef(self) -> Self:
        """The correlations of the rows, each a variable."""
        covariances = self.cov()
        if covariances.ndim == 0:
            return covariances / covariances
        size = covariances.diagonal().sqrt()
        return covariances / size.unsqueeze(-1) / size

    # ---- products ----
    def mm(self, mat2: Self) -> Self:
        """The product of two matrices."""
        return self._product("mm", 2, mat2, 2)

    def bmm(self, mat2: Self) -> Self:
        """The products of two batches of matrices."""
        return self._product("bmm", 3, mat2, 3)

    def mv(self, vec: Self) -> Self:
        """The product of a matrix and a vector."""
        return self._product("mv", 2, vec, 1)

    def vdot(self, other: Self) -> Self:
        """The product of two vectors."""
        return self._product("vdot", 1, other, 1)

    def _product(self, name: str, rank: int, other: Self, other_rank: int) -> Self:
        if (self.ndim, other.ndim) != (rank, other_rank):
            raise ShapeError(
                f"{name} takes {rank} and {other_rank} axes, not {self.shape} and {other.shape}."
            )
        return self.matmul(other)

    ger, baddbmm, addmv = Attention.outer, Attention.addmm, Attention.addmm

    def addbmm(
        self, batch1: Self, batch2: Self, beta: ConstType = 1, alpha: ConstType = 1
    ) -> Self:
        """beta*self + alpha times the sum of the products of a batch."""
        return self * beta + batch1.bmm(batch2).sum(0) * alpha

    def addr(self, vec1: Self, vec2: Self, beta: ConstType = 1, alpha: ConstType = 1) -> Self:
        """beta*self + alpha*outer(vec1, vec2)."""
        return self * beta + vec1.outer(vec2) * alpha

    conv1d, conv3d, image_conv2d = Attention.conv2d, Attention.conv2d, Attention.conv2d
    conv_transpose1d, conv_transpose3d = Attention.conv_transpose2d, Attention.conv_transpose2d
    image_dot = Attention.dot

    # ---- positions ----
    def argwhere(self) -> Self:
        """The positions of what is not 0: (count, axes)."""
        return self.nonzero()

    def bincount(self, minlength: int = 0) -> Self:
        """How often each of 0, 1, ... up to the greatest element occurs; reads that."""
        if self.ndim != 1 or not dtypes.is_int(self.dtype):
            raise DtypeError(f"bincount takes a vector of integers, not {self!r}.")
        greatest: Any = self.max() if self.numel() else None
        count = max(minlength, 0 if greatest is None else int(greatest.item()) + 1)
        if not count or greatest is None:
            return self._iota(count) * 0
        return self.one_hot(count).sum(0)

    # ---- what PyTorch asks of tensors that may be complex, sparse or on a GPU ----
    @property
    def real(self) -> Self:
        """self: no tensor is complex."""
        return self

    def conj(self) -> Self:
        """self: no tensor is complex."""
        return self

    def is_complex(self) -> bool:
        """False."""
        return False

    def isreal(self) -> Self:
        """True everywhere."""
        return self.const_like(True, dtypes.bool)

    @property
    def mH(self) -> Self:  # noqa: N802
        """`mT`."""
        return self.mT

    @property
    def H(self) -> Self:  # noqa: N802
        """A matrix transposed."""
        return self.t()

    @property
    def is_leaf(self) -> bool:
        """Whether no gradient goes through this tensor to what it was made of."""
        return not self._requires_grad or self._leaf

    def cpu(self) -> Self:
        """self on the processor: where it is if that is one, else the default processor."""
        return self if Device.is_processor(self.device) else self.to(Device.processor())

    def nonzero_static(self, size: int, fill_value: int = -1) -> Self:
        """`nonzero` with a number of rows that is known, filled where there is no element."""
        there = self._places(size) >= 0
        return there.unsqueeze(-1).where(self.nonzero(size=size), fill_value)

    # ---- new tensors like this one ----
    def new_tensor(self, data: Any, dtype: DTypeLike | None = None) -> Self:
        """A tensor of `data` with the type and place of self."""
        return type(self)(data, device=self.device, dtype=dtype or self.dtype)  # type: ignore[call-arg]

    def new_full(self, size: Any, fill_value: ConstType, **kwargs: Any) -> Self:
        """`full` with the type and place of self."""
        return type(self).full(size, fill_value, **self._like(kwargs))

    def new_zeros(self, *size: Any, **kwargs: Any) -> Self:
        """`zeros` with the type and place of self."""
        return type(self).zeros(*size, **self._like(kwargs))

    def new_ones(self, *size: Any, **kwargs: Any) -> Self:
        """`ones` with the type and place of self."""
        return type(self).ones(*size, **self._like(kwargs))

    def new_empty(self, *size: Any, **kwargs: Any) -> Self:
        """`empty` with the type and place of self."""
        return type(self).empty(*size, **self._like(kwargs))

    def contiguous_backward(self) -> Self:
        """self: tinygrad lets a program say where a gradient is stored; here the scheduler does."""
        return self

    def is_param_(self, is_param: bool = True) -> Self:
        """`requires_grad_`."""
        return self.requires_grad_(is_param)

    @property
    def is_param(self) -> bool:
        """Whether backward() may fill in the gradient of this tensor."""
        return self._requires_grad is not False

    # ---- another shape in place ----
    def squeeze_(self, dim: int | tuple[int, ...] | None = None) -> Self:
        """`squeeze`, of this tensor itself."""
        return self._reshaped(self.squeeze(dim))

    def unsqueeze_(self, dim: int) -> Self:
        """`unsqueeze`, of this tensor itself."""
        return self._reshaped(self.unsqueeze(dim))

    def transpose_(self, dim0: int = 1, dim1: int = 0) -> Self:
        """`transpose`, of this tensor itself."""
        return self._reshaped(self.transpose(dim0, dim1))

    def t_(self) -> Self:
        """`t`, of this tensor itself."""
        return self._reshaped(self.t())

    def _reshaped(self, view: Self) -> Self:
        if self._requires_grad:
            raise GradientError("The shape of a tensor with a gradient stays; use a view of it.")
        me: Any = self  # `_become` is of a higher layer
        me._become(view)
        return self

    # ---- writing ----
    def fill_(self, value: ConstType) -> Self:
        """Writes `value` everywhere."""
        return self._write(self.full_like(value))

    def zero_(self) -> Self:
        """Writes 0 everywhere."""
        return self._write(self.zeros_like())

    def copy_(self, src: Self) -> Self:
        """Writes `src`, cast and repeated to fit."""
        return self._write(src.to(self.device).cast(self.dtype)._broadcast_to(self.shape))

    def uniform_(self, a: float = 0.0, b: float = 1.0) -> Self:
        """Writes random numbers in [a, b)."""
        return self._write(
            type(self).uniform(*self.shape, low=a, high=b, device=self.device, dtype=self.dtype)
        )

    def normal_(self, mean: float = 0.0, std: float = 1.0) -> Self:
        """Writes normal random numbers."""
        drawn = type(self).normal(
            *self.shape, mean=mean, std=std, device=self.device, dtype=self.dtype
        )
        return self._write(drawn)

    def bernoulli_(self, p: float = 0.5) -> Self:
        """Writes 1 with probability p, else 0."""
        return self._write(self._random() < p)

    def exponential_(self, lambd: float = 1.0) -> Self:
        """Writes random numbers of the mean 1/lambd."""
        if lambd <= 0:
            raise ShapeError(f"exponential_ takes a lambd above 0, not {lambd}.")
        return self._write((1 - self._random()).log() * (-1 / lambd))

    def geometric_(self, p: float) -> Self:
        """Writes how often to try for a success of probability p, 1 or more."""
        if not 0 < p < 1:
            raise ShapeError(f"geometric_ takes a probability between 0 and 1, not {p}.")
        return self._write(((1 - self._random()).log() * (1 / math.log1p(-p))).ceil().maximum(1))

    def log_normal_(self, mean: float = 1.0, std: float = 2.0) -> Self:
        """Writes the exponentials of normal random numbers."""
        drawn = type(self).normal(*self.shape, mean=mean, std=std, device=self.device)
        return self._write(drawn.exp())

    def cauchy_(self, median: float = 0.0, sigma: float = 1.0) -> Self:
        """Writes random numbers of Cauchy's distribution."""
        return self._write(((self._random() - 0.5) * math.pi).tan() * sigma + median)

    def random_(self, low: int = 0, high: int | None = None) -> Self:
        """Writes random whole numbers in [low, high), by default all that the type holds.

        With one number, it is `high`. Floats need it.
        """
        if high is None and low:
            low, high = 0, low
        if high is None:
            if not dtypes.is_int(self.dtype):
                raise DtypeError(f"random_ needs the upper limit for {self.dtype}.")
            high = int(self.dtype.max) + (self.dtype.bits < 64)
        return self._write(
            type(self).randint(*self.shape, low=low, high=high, device=self.device,
                               dtype=self.dtype if dtypes.is_int(self.dtype) else dtypes.int64)
        )

    def _random(self) -> Self:
        return type(self).rand(*self.shape, device=self.device)

    def fill_diagonal_(self, value: ConstType) -> Self:
        """Writes `value` on the diagonal of a matrix."""
        length = min(self._fixed(0), self._fixed(1))
        return self._write(self.diagonal_scatter(self._constant(value)._broadcast_to((length,))))

    def _write(self, value: Any) -> Self:
        me: Any = self  # `assign` is of a higher layer
        me.assign(value.detach())
        return self


def _in_place(name: str) -> Callable[..., Any]:
    """The method `name_`, which writes what the method `name` gives."""

    def write(self: Names, *args: Any, **kwargs: Any) -> Names:
        return self._write(getattr(self, name)(*args, **kwargs).cast(self.dtype))

    write.__name__ = write.__qualname__ = f"{name}_"
    write.__doc__ = f"Writes what `{name}` gives, in the type of self."
    return write


IN_PLACE = """abs absolute acos acosh add addbmm addcdiv addcmul addmm addr arccos arccosh arcsin
    arcsinh arctan arctan2 arctanh asin asinh atan atan2 atanh bitwise_and bitwise_left_shift
    bitwise_not bitwise_or bitwise_right_shift bitwise_xor ceil clamp clamp_max clamp_min clip
    copysign cos cosh cumprod cumsum deg2rad digamma div divide eq erf erfc erfinv exp exp2
    expm1 fix float_power floor floor_divide fmod frac gcd ge greater greater_equal gt
    heaviside hypot index_add index_copy index_fill index_put lcm ldexp le lerp less
    less_equal lgamma log log10 log1p log2 logical_and logical_not logical_or logical_xor
    logit lshift lt masked_fill masked_scatter mod mul multiply nan_to_num ne neg negative
    not_equal pow put rad2deg reciprocal relu remainder renorm round rshift rsqrt scatter
    scatter_add scatter_reduce sgn sigmoid sign sin sinc sinh sqrt square sub subtract tan
    tanh tril triu true_divide trunc xlogy""".split()
for _name in IN_PLACE:
    setattr(Names, f"{_name}_", _in_place(_name))
