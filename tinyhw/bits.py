"""The bits of elements as another type's."""

from __future__ import annotations

from typing import Any, Self

from compiler.dtype import DType, dtypes
from compiler.ir import Op
from tinyhw.core import DTypeLike, to_dtype
from tinyhw.errors import DtypeError
from tinyhw.reductions import Reductions


class Bits(Reductions):
    """Elements taken apart and put together, the lowest byte first."""

    __slots__ = ()

    def bitcast(self, dtype: DTypeLike) -> Self:
        """The same bits as another type.

        If that has another width, the last axis has as many elements more or less: (..., n) float32
        are (..., 4n) uint8, and back. A bool is a byte of 0 or 1; as bool, a byte is whether it
        is not 0. Raises DtypeError if the last axis does not fill whole elements.
        """
        wanted = to_dtype(dtype)
        if wanted is self.dtype:
            return self
        if self.dtype is dtypes.bool:
            return self.detach().cast(dtypes.uint8).bitcast(wanted)
        if wanted is dtypes.bool:
            return self.bitcast(dtypes.uint8).ne(0)
        old, new = self.dtype.itemsize, wanted.itemsize
        if old == new:
            return self._same_width(wanted)
        if not self.ndim or (new > old and self._fixed(self.ndim - 1) * old % new):
            raise DtypeError(
                f"Cannot bitcast {self.dtype} ({old} bytes), {self.shape}, to {wanted} ({new} "
                "bytes): the last axis does not fill whole elements."
            )
        whole, bits = self._same_width(_unsigned(old)), _unsigned(new)
        if new < old:
            shifts = (self._iota(old // new) * (8 * new)).cast(whole.dtype)
            parts = (whole.unsqueeze(-1) >> shifts).cast(bits).flatten(-2)
            return parts._same_width(wanted)
        shifts = (self._iota(new // old) * (8 * old)).cast(bits)
        parts = whole.unflatten(-1, (-1, new // old)).cast(bits) << shifts
        return parts._reduce(Op.ADD, (parts.ndim - 1,), keepdim=False)._same_width(wanted)

    def view(self, *shape: Any) -> Self:
        """`reshape`, or `bitcast` if it is given a dtype."""
        if len(shape) == 1 and isinstance(shape[0], DType):
            return self.bitcast(shape[0])
        return super().view(*shape)


def _unsigned(itemsize: int) -> DType:
    return dtypes.from_name(f"uint{8 * itemsize}")
