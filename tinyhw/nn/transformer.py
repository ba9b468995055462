"""Attention with several heads and the layers around it, with PyTorch's names and masks.

A bool mask is true where a key does not count, the opposite of `scaled_dot_product_attention`'s;
a float mask is added to the scores.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Callable
from typing import Any

from compiler.dtype import dtypes
from tinyhw.errors import DtypeError, ShapeError
from tinyhw.nn.module import Module
from tinyhw.nn.shapes import ModuleList, refuse
from tinyhw.tensor import Tensor

Activation = str | Callable[[Tensor], Tensor]


class MultiheadAttention(Module):
    """Queries ask keys for values, in `num_heads` parts of embed_dim each for itself.

    kdim, vdim: features of keys and values, embed_dim by default. Inputs are (steps, batch,
    features), (batch, steps, features) with batch_first, or without a batch.
    """

    def __init__(
        self,
        embed_dim: int,
        num_heads: int,
        dropout: float = 0.0,
        bias: bool = True,
        add_bias_kv: bool = False,
        add_zero_attn: bool = False,
        kdim: int | None = None,
        vdim: int | None = None,
        batch_first: bool = False,
    ) -> None:
        refuse("MultiheadAttention", add_bias_kv=add_bias_kv, add_zero_attn=add_zero_attn)
        if num_heads < 1 or embed_dim % num_heads:
            raise ShapeError(f"{embed_dim} features do not divide into {num_heads} heads.")
        from tinyhw.nn import Linear

        self.embed_dim, self.num_heads, self.dropout = embed_dim, num_heads, dropout
        self.batch_first = batch_first
        widths = (embed_dim, kdim or embed_dim, vdim or embed_dim)
        if widths == (embed_dim,) * 3:
            self.in_proj_weight = Tensor.glorot_uniform(3 * embed_dim, embed_dim)
        else:
            self.q_proj_weight, self.k_proj_weight, self.v_proj_weight = (
                Tensor.glorot_uniform(embed_dim, width) for width in widths
            )
        self.in_proj_bias = Tensor.zeros(3 * embed_dim) if bias else None
        self.out_proj = Linear(embed_dim, embed_dim, bias)

    def __call__(
        self,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        key_padding_mask: Tensor | None = None,
        need_weights: bool = True,
        attn_mask: Tensor | None = None,
        average_attn_weights: bool = True,
        is_causal: bool = False,
    ) -> tuple[Tensor, Tensor | None]:
        """(output like query, weights (batch, queries, keys) or None).

        key_padding_mask: (batch, keys); attn_mask: (queries, keys) or (batch*heads, queries,
        keys). Not averaged, the weights are (batch, heads, queries, keys).
        """
        if is_causal and attn_mask is None:
            raise ShapeError("is_causal only says what attn_mask is; give the mask, too.")
        single = query.ndim == 2
        if single:
            query, key, value = (t.unsqueeze(0) for t in (query, key, value))
            if key_padding_mask is not None:
                key_padding_mask = key_padding_mask.unsqueeze(0)
        elif not self.batch_first:
            query, key, value = (t.transpose(0, 1) for t in (query, key, value))
        q, k, v = (self._heads(i, t) for i, t in enumerate((query, key, value)))
        scores = q.matmul(k.transpose(-2, -1)) * (1 / math.sqrt(self.embed_dim // self.num_heads))
        if attn_mask is not None:
            if attn_mask.ndim == 3:
                attn_mask = attn_mask.reshape((-1, self.num_heads, *attn_mask.shape[1:]))
            scores = _masked(scores, attn_mask)
        if key_padding_mask is not None:
            scores = _masked(scores, key_padding_mask.unsqueeze(1).unsqueeze(1))
        weights = scores.softmax(-1)
        mixed = weights.dropout(self.dropout).matmul(v).transpose(1, 2).flatten(2)
        output = self.out_proj(mixed)
        shown = None
        if need_weights:
            shown = weights.mean(1) if average_attn_weights else weights
        if single:
            return output.squeeze(0), None if shown is None else shown.squeeze(0)
        return (output if self.batch_first else output.transpose(0, 1)), shown

    def _heads(self, i: int, x: Tensor) -> Tensor:
        """(batch, steps, features) as (batch, heads, steps, features of a head)."""
        n = self.embed_dim
        if hasattr(self, "in_proj_weight"):
            weight = self.in_proj_weight[i * n : (i + 1) * n]
        else:
            weight = (self.q_proj_weight, self.k_proj_weight, self.v_proj_weight)[i]
        bias = None if self.in_proj_bias is None else self.in_proj_bias[i * n : (i + 1) * n]
        return x.linear(weight.T, bias).unflatten(-1, (self.num_heads, -1)).transpose(1, 2)


def _masked(scores: Tensor, mask: Tensor) -> Tensor:
    if mask.dtype is dtypes.bool:
        return mask.where(-math.inf, scores)
    if not dtypes.is_float(mask.dtype):
        raise DtypeError(f"A mask is bool or float, not {mask.dtype}.")
    return scores + mask


class _Block(Module):
    """What encoder and decoder layers share: two linear layers, and norms before or after."""

    def __init__(
        self, d_model: int, dim_feedforward: int, dropout: float, activation: Activation,
        norm_first: bool, norms: int, eps: float,
    ) -> None:
        from tinyhw.nn import LayerNorm, Linear

        if isinstance(activation, str) and activation not in ("relu", "gelu"):
            raise DtypeError(f"activation is 'relu', 'gelu' or a function, not {activation!r}.")
        self.linear1 = Linear(d_model, dim_feedforward)
        self.linear2 = Linear(dim_feedforward, d_model)
        self.activation, self.dropout, self.norm_first = activation, dropout, norm_first
        for i in range(1, norms + 1):
            setattr(self, f"norm{i}", LayerNorm(d_model, eps))

    def _added(self, x: Tensor, norm: int, change: Callable[[Tensor], Tensor]) -> Tensor:
        """x and what `change` makes of it, the norm before that or after it."""
        layer: Callable[[Tensor], Tensor] = getattr(self, f"norm{norm}")
        if self.norm_first:
            return x + change(layer(x)).dropout(self.dropout)
        return layer(x + change(x).dropout(self.dropout))

    def _feed(self, x: Tensor) -> Tensor:
        x = self.linear1(x)
        if self.activation == "gelu":
            x = x.gelu("none")
        else:
            x = x.relu() if isinstance(self.activation, str) else self.activation(x)
        return self.linear2(x.dropout(self.dropout))


class TransformerEncoderLayer(_Block):
    """Attention of a sequence to itself, then two linear layers (Vaswani et al., 2017)."""

    def __init__(
        self,
        d_model: int,
        nhead: int,
        dim_feedforward: int = 2048,
        dropout: float = 0.1,
        activation: Activation = "relu",
        layer_norm_eps: float = 1e-5,
        batch_first: bool = False,
        norm_first: bool = False,
    ) -> None:
        super().__init__(
            d_model, dim_feedforward, dropout, activation, norm_first, 2, layer_norm_eps
        )
        self.self_attn = MultiheadAttention(d_model, nhead, dropout, batch_first=batch_first)

    def __call__(
        self,
        src: Tensor,
        src_mask: Tensor | None = None,
        src_key_padding_mask: Tensor | None = None,
        is_causal: bool = False,
    ) -> Tensor:
        """The same shape comes out."""

        def attend(x: Tensor) -> Tensor:
            return self.self_attn(
                x, x, x, src_key_padding_mask, False, src_mask, is_causal=is_causal
            )[0]

        return self._added(self._added(src, 1, attend), 2, self._feed)


class TransformerDecoderLayer(_Block):
    """Attention of a sequence to itself and to another, then two linear layers."""

    def __init__(
        self,
        d_model: int,
        nhead: int,
        dim_feedforward: int = 2048,
        dropout: float = 0.1,
        activation: Activation = "relu",
        layer_norm_eps: float = 1e-5,
        batch_first: bool = False,
        norm_first: bool = False,
    ) -> None:
        super().__init__(
            d_model, dim_feedforward, dropout, activation, norm_first, 3, layer_norm_eps
        )
        self.self_attn = MultiheadAttention(d_model, nhead, dropout, batch_first=batch_first)
        self.multihead_attn = MultiheadAttention(d_model, nhead, dropout, batch_first=batch_first)

    def __call__(
        self,
        tgt: Tensor,
        memory: Tensor,
        tgt_mask: Tensor | None = None,
        memory_mask: Tensor | None = None,
        tgt_key_padding_mask: Tensor | None = None,
        memory_key_padding_mask: Tensor | None = None,
        tgt_is_causal: bool = False,
        memory_is_causal: bool = False,
    ) -> Tensor:
        """tgt's shape comes out."""

        def inward(x: Tensor) -> Tensor:
            return self.self_attn(
                x, x, x, tgt_key_padding_mask, False, tgt_mask, is_causal=tgt_is_causal
            )[0]

        def outward(x: Tensor) -> Tensor:
            return self.multihead_attn(
                x, memory, memory, memory_key_padding_mask, False, memory_mask,
                is_causal=memory_is_causal,
            )[0]

        x = self._added(self._added(tgt, 1, inward), 2, outward)
        return self._added(x, 3, self._feed)


class _Stack(Module):
    """Copies of a layer one after the other, and a norm behind the last."""

    def __init__(self, layer: Any, num_layers: int, norm: Any = None) -> None:
        self.layers = ModuleList(copy.deepcopy(layer) for _ in range(num_layers))
        self.norm = norm

    def _through(self, x: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        for layer in self.layers:
            x = layer(x, *args, **kwargs)
        return x if self.norm is None else self.norm(x)


class TransformerEncoder(_Stack):
    """Copies of a TransformerEncoderLayer."""

    def __call__(
        self,
        src: Tensor,
        mask: Tensor | None = None,
        src_key_padding_mask: Tensor | None = None,
        is_causal: bool = False,
    ) -> Tensor:
        """The same shape comes out."""
        return self._through(src, mask, src_key_padding_mask, is_causal)


class TransformerDecoder(_Stack):
    """Copies of a TransformerDecoderLayer."""

    def __call__(self, tgt: Tensor, memory: Tensor, *masks: Any, **named: Any) -> Tensor:
        """tgt's shape comes out; masks as the layer has them."""
        return self._through(tgt, memory, *masks, **named)
