"""Attention."""

from __future__ import annotations

import math
from typing import Self

from compiler.dtype import dtypes
from tinyhw.errors import ShapeError
from tinyhw.losses import Losses


class Attention(Losses):
    """What weighs values by how keys fit queries."""

    __slots__ = ()

    def scaled_dot_product_attention(
        self,
        key: Self,
        value: Self,
        attn_mask: Self | None = None,
        dropout_p: float = 0.0,
        is_causal: bool = False,
        enable_gqa: bool = False,
        scale: float | None = None,
    ) -> Self:
        """softmax(self @ key.T * scale + mask) @ value; scale: 1/sqrt(width) for None.

        self: (..., queries, width); key, value: (..., keys, width). A bool mask says which keys
        count, a float mask is added; a query that no key counts for gives 0. `enable_gqa` repeats
        the heads (axis -3) of key and value.
        """
        if enable_gqa:
            heads = self._fixed(self.ndim - 3)
            if heads % key._fixed(key.ndim - 3) or heads % value._fixed(value.ndim - 3):
                raise ShapeError(
                    f"{heads} heads of queries are no multiple of those of the keys {key.shape} "
                    f"and values {value.shape}."
                )
            key = key.repeat_interleave(heads // key._fixed(key.ndim - 3), dim=-3)
            value = value.repeat_interleave(heads // value._fixed(value.ndim - 3), dim=-3)
        scale = 1 / math.sqrt(self._fixed(self.ndim - 1)) if scale is None else scale
        scores = self.matmul(key.transpose(-2, -1), dtype=_score_dtype(self)) * scale
        if is_causal:
            if attn_mask is not None:
                raise ShapeError("attn_mask and is_causal exclude each other.")
            causal = scores._range_along(scores.ndim - 1) <= scores._range_along(scores.ndim - 2)
            scores = causal.where(scores, -math.inf)
        elif attn_mask is not None:
            if attn_mask.dtype is dtypes.bool:
                scores = attn_mask.where(scores, -math.inf)
            else:
                scores = scores + attn_mask
        if attn_mask is not None:
            nothing = scores.detach().max(-1, keepdim=True).eq(-math.inf)
            weights = nothing.where(0, nothing.where(0, scores).softmax(-1))
        else:
            weights = scores.softmax(-1)
        return weights.cast(self.dtype).dropout(dropout_p).matmul(value)


def _score_dtype(x: Attention) -> str:
    return "float32" if x.dtype.bits < 32 else x.dtype.name
