"""Attention: softmax and linear, rotary positions, and gated activations."""

from __future__ import annotations

import math

from compiler.dtype import dtypes
from tinyhw.errors import NotSupported, ShapeError
from tinyhw.formats.onnx.operators.indexing import from_front
from tinyhw.formats.onnx.registry import Call, operator
from tinyhw.tensor import Tensor


def _split_heads(x: Tensor, heads: int) -> Tensor:
    """(batch, steps, heads·width) as (batch, heads, steps, width)."""
    batch, steps, width = x._fixed_shape()
    if heads < 1 or width % heads:
        raise ShapeError(f"A width of {width} is no multiple of {heads} heads.")
    return x.reshape((batch, steps, heads, width // heads)).permute((0, 2, 1, 3))


def _join_heads(x: Tensor) -> Tensor:
    batch, heads, steps, width = x._fixed_shape()
    return x.permute((0, 2, 1, 3)).reshape((batch, steps, heads * width))


def _shared(x: Tensor, heads: int) -> Tensor:
    """Keys or values of as many heads as there are of queries."""
    have = x._fixed(1)
    if heads % have:
        raise ShapeError(f"{heads} heads of queries are no multiple of {have}.")
    return x if heads == have else x.repeat_interleave(heads // have, 1)


def _allowed(
    call: Call, queries: int, keys: int, offset: Tensor | int, lengths: Tensor | None, device: str
) -> Tensor | None:
    """Which keys each query may see, to broadcast with (batch, heads, queries, keys)."""
    key = Tensor.arange(keys, device=device)
    place = Tensor.arange(queries, device=device).reshape((queries, 1)) + offset
    rules = []
    if call.int("is_causal", 0):
        rules.append(key <= place)
    left, right = call.int("left_window_size", -1), call.int("right_window_size", -1)
    if left >= 0:
        rules.append(key >= place - left)
    if right >= 0:
        rules.append(key <= place + right)
    if lengths is not None:
        rules.append(key < lengths)
    found: Tensor | None = None
    for rule in rules:
        found = rule if found is None else found & rule
    return found


@operator("Attention", since=23)
def attention(
    call: Call, q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None = None,
    past_key: Tensor | None = None, past_value: Tensor | None = None,
    lengths: Tensor | None = None,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """softmax(q @ k.T · scale + mask) @ v, with caches of keys and values."""
    flat = q.ndim == 3
    if flat:
        q = _split_heads(q, call.int("q_num_heads"))
        k, v = (_split_heads(x, call.int("kv_num_heads")) for x in (k, v))
    offset: Tensor | int = 0
    if past_key is not None and past_value is not None:
        offset = past_key._fixed(2)
        k, v = past_key.cat(k, dim=2), past_value.cat(v, dim=2)
    present = (k, v)
    heads, queries, width = q._fixed_shape()[1:]
    keys = k._fixed(2)
    if lengths is not None:
        lengths = lengths.cast(dtypes.int32).reshape((-1, 1, 1, 1))
        if past_key is None:
            offset = lengths - queries
    scale = call.float("scale", 0.0) or 1 / math.sqrt(width)
    root = math.sqrt(scale) if scale > 0 else 1.0
    rest = 1.0 if scale > 0 else scale
    scores = (q * (root * rest)).matmul((_shared(k, heads) * root).transpose(-2, -1))
    raw = scores
    softcap = call.float("softcap", 0.0)
    bias, allowed = _mask(mask, keys), _allowed(call, queries, keys, offset, lengths, q.device)

    def capped(x: Tensor) -> Tensor:
        return (x / softcap).tanh() * softcap if softcap else x

    def masked(x: Tensor) -> Tensor:
        if bias is not None:
            x = bias.where(x, -math.inf) if bias.dtype is dtypes.bool else x + bias.cast(x.dtype)
        return x if allowed is None else allowed.where(x, -math.inf)

    first, second = (capped(scores), masked(capped(scores))) if softcap else (
        scores, masked(scores)
    )
    scores = second
    precision = call.dtype("softmax_precision", scores.dtype)
    nothing = scores.max(-1, keepdim=True).eq(-math.inf)
    weights = nothing.where(0, scores.cast(precision)).softmax(-1).cast(q.dtype)
    weights = nothing.where(0, weights) if bias is not None or allowed is not None else weights
    mode = call.int("qk_matmul_output_mode", 0)
    if not 0 <= mode <= 3:
        raise NotSupported(f"Attention has no output mode {mode}; there are 0 to 3.")
    shown = (raw, first, second, weights)[mode]
    y = weights.cast(v.dtype).matmul(_shared(v, heads)).cast(q.dtype)
    return (_join_heads(y) if flat else y), *present, shown


def _mask(mask: Tensor | None, keys: int) -> Tensor | None:
    """A mask for all keys; what a short one leaves out does not count."""
    if mask is None or mask.shape[-1] in (keys, 1):
        return mask
    pads: list[tuple[int, int] | None] = [None] * mask.ndim
    pads[-1] = (0, keys - mask._fixed(mask.ndim - 1))
    if mask.dtype is dtypes.bool:
        return mask.cast(dtypes.uint8).pad(pads).ne(0)
    return mask.pad(pads, value=-math.inf)


@operator("FlexAttention", domain="ai.onnx.preview")
def flex_attention(call: Call, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """Attention whose scores and shares graphs may change."""
    heads, width = q._fixed(1), q._fixed(3)
    default = dtypes.float64 if q.dtype is dtypes.float64 else dtypes.float32
    precision = call.dtype("softmax_precision", default)
    scale = call.float("scale", 0.0) or 1 / math.sqrt(width)
    keys = _shared(k, heads).cast(precision).transpose(-2, -1)
    scores = q.cast(precision).matmul(keys) * scale
    if call.has("score_mod"):
        scores = call.run.tensor(call.run.run_body(call, call.graph("score_mod"), [scores])[0])
    shares = scores.softmax(-1)
    if call.has("prob_mod"):
        shares = call.run.tensor(call.run.run_body(call, call.graph("prob_mod"), [shares])[0])
    return shares.matmul(_shared(v, heads).cast(precision)).cast(q.dtype)


@operator("LinearAttention", since=27)
def linear_attention(
    call: Call, q: Tensor, k: Tensor, v: Tensor, past: Tensor | None = None,
    decay: Tensor | None = None, beta: Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    """A state of keys times values that each step adds to, and that its query reads."""
    rule = call.string("update_rule", "gated_delta")
    if rule not in ("linear", "gated", "delta", "gated_delta"):
        raise NotSupported(f"LinearAttention has no update rule {rule!r}.")
    dtype, heads, shared = q.dtype, call.int("q_num_heads"), call.int("kv_num_heads")
    state_dtype = dtype if past is None else past.dtype
    wide = dtypes.float32 if dtype.bits < 32 else dtype
    q, k, v = (
        _split_heads(x.cast(wide), n) for x, n in ((q, heads), (k, shared), (v, shared))
    )
    batch, _, steps, width = k._fixed_shape()
    scale = call.float("scale", 0.0) or 1 / math.sqrt(width)
    if past is None:
        state = Tensor.zeros((batch, shared, width, v._fixed(3)), dtype=wide, device=q.device)
    else:
        state = past.cast(wide)
    if decay is not None:  # of each key, or of a whole head
        decay = _split_heads(decay.cast(wide), shared).exp().unsqueeze(-1)
    if beta is not None:
        beta = beta.cast(wide).permute((0, 2, 1)).unsqueeze(-1)
    outputs = []
    for t in range(steps):
        key, value = k[:, :, t].unsqueeze(-1), v[:, :, t].unsqueeze(-2)
        if "gated" in rule:
            if decay is None:
                raise ShapeError(f"The update rule {rule!r} needs a decay.")
            state = state * decay[:, :, t]
        if "delta" in rule:
            if beta is None:
                raise ShapeError(f"The update rule {rule!r} needs a beta.")
            value = (value - (state * key).sum(-2, keepdim=True)) * beta[:, :, t].unsqueeze(-1)
        state = (state + key * value).contiguous()
        query = q[:, :, t].unsqueeze(-2)
        outputs.append(query.matmul(_shared(state, heads)).squeeze(-2) * scale)
    y = outputs[0].stack(*outputs[1:], dim=2)
    return _join_heads(y).cast(dtype), state.cast(state_dtype)


@operator("CausalConvWithState", since=27)
def causal_conv_with_state(
    call: Call, x: Tensor, w: Tensor, bias: Tensor | None = None, past: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """A convolution of each channel that looks back only; also the elements to look back to."""
    channels, back = x._fixed(1), w._fixed(2) - 1
    whole = x.pad([None, None, (back, 0)]) if past is None else past.cat(x, dim=2)
    y = whole.conv2d(w, bias, channels)
    activation = call.string("activation", "none")
    if activation in ("silu", "swish"):
        y = y * y.sigmoid()
    elif activation != "none":
        raise NotSupported(f"CausalConvWithState has no activation {activation!r}.")
    n = whole._fixed(2)
    return y, whole[:, :, n - back :]


@operator("RotaryEmbedding", since=23)
def rotary_embedding(
    call: Call, x: Tensor, cos: Tensor, sin: Tensor, places: Tensor | None = None
) -> Tensor:
    """Pairs of elements turned by an angle that depends on the position."""
    y = _split_heads(x, call.int("num_heads")) if x.ndim == 3 else x
    width = call.int("rotary_embedding_dim", 0) or y._fixed(3)
    turned, rest = y[..., :width], y[..., width:]
    if places is not None:
        at = from_front(places, cos._fixed(0))
        cos, sin = cos[at], sin[at]
    cos, sin = cos.unsqueeze(1), sin.unsqueeze(1)
    if call.int("interleaved", 0):
        a, b = turned[..., 0::2], turned[..., 1::2]
    else:
        a, b = turned[..., : width // 2], turned[..., width // 2 :]
    real, imaginary = cos * a - sin * b, sin * a + cos * b
    if call.int("interleaved", 0):
        found = real.stack(imaginary, dim=-1).reshape(turned.shape)
    else:
        found = real.cat(imaginary, dim=-1)
    found = found.cat(rest, dim=-1) if rest.shape[-1] else found
    return _join_heads(found) if x.ndim == 3 else found


@operator("SwiGLU", since=28)
def swiglu(call: Call, gate: Tensor, value: Tensor) -> Tensor:
    """gate · sigmoid(alpha·gate) · value."""
    return gate * (gate * call.float("alpha", 1.0)).sigmoid() * value


