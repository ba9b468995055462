"""Casts by the name of the type: `tensor.half()`.

They stand in a class of their own because a method called `int` hides the type of that name from
the annotations around it.
"""

from __future__ import annotations

from typing import Self

from compiler.dtype import dtypes
from tinyhw.core import Core


class Casts(Core):
    """One method for each type that is often cast to."""

    __slots__ = ()

    def float(self) -> Self:
        """Cast to float32."""
        return self.cast(dtypes.float32)

    def half(self) -> Self:
        """Cast to float16."""
        return self.cast(dtypes.float16)

    def bfloat16(self) -> Self:
        """Cast to bfloat16."""
        return self.cast(dtypes.bfloat16)

    def double(self) -> Self:
        """Cast to float64."""
        return self.cast(dtypes.float64)

    def int(self) -> Self:
        """Cast to int32."""
        return self.cast(dtypes.int32)

    def long(self) -> Self:
        """Cast to int64."""
        return self.cast(dtypes.int64)

    def short(self) -> Self:
        """Cast to int16."""
        return self.cast(dtypes.int16)

    def bool(self) -> Self:
        """Whether each element differs from zero."""
        return self.cast(dtypes.bool)
