"""A small language model that decodes with a key/value cache, one capture for all positions."""

from __future__ import annotations

import math
import os

import numpy as np
import pytest

from compiler import compile as compiler
from compiler.ir import Extent
from tinyhw import Device, Tensor, TinyJit, Variable
from tinyhw.errors import IndexOutOfRange

VOCABULARY, WIDTH, HEADS, KV_HEADS, LAYERS, CONTEXT = 40, 32, 4, 2, 2, 16
HEAD = WIDTH // HEADS
PROMPT = [3, 7, 1, 12, 5]
FULL = os.environ.get("TINYHW_FULL") == "1"


BESIDES = () if os.environ.get("NV") == "1" else ("AMD",)  # one machine is emulated at a time


@pytest.fixture(params=["default", *BESIDES, *(["CLANG"] if FULL else [])])
def device(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """The chosen device, an emulated GPU besides, and C code where there is time."""
    if request.param == "AMD":
        monkeypatch.setenv("EMULATE", os.environ.get("EMULATE", "gfx1100"))
    return Device.DEFAULT if request.param == "default" else str(request.param)


class Layer:
    """Attention with grouped heads and a cache, then two matrices."""

    def __init__(self, random: np.random.Generator, device: str) -> None:
        def weight(*shape: int) -> Tensor:
            values = random.standard_normal(shape) * 0.4
            return Tensor(values.astype(np.float32), device=device).realize()

        self.query, self.out = weight(WIDTH, WIDTH), weight(WIDTH, WIDTH)
        self.key, self.value = (weight(WIDTH, KV_HEADS * HEAD) for _ in range(2))
        self.up, self.down = weight(WIDTH, 2 * WIDTH), weight(2 * WIDTH, WIDTH)
        cache = Tensor.zeros(2, 1, KV_HEADS, CONTEXT, HEAD, device=device)
        self.cache = cache.contiguous().realize()

    def __call__(self, x: Tensor, start: Extent, cached: bool) -> Tensor:
        count = x.shape[1]
        h = x.layernorm()
        q, k, v = (
            (h @ w).reshape(1, count, -1, HEAD).transpose(1, 2)
            for w in (self.query, self.key, self.value)
        )
        mask = None
        if cached:
            self.cache[:, :, :, start : start + count].assign(k.stack(v))
            k, v = self.cache[0, :, :, : start + count], self.cache[1, :, :, : start + count]
            if count != 1:
                mask = Tensor.full((count, start + count), -math.inf, device=x.device)
                mask = mask.triu(start + 1)
        attended = q.scaled_dot_product_attention(k, v, mask, is_causal=not cached, enable_gqa=True)
        x = x + attended.transpose(1, 2).reshape(1, count, WIDTH) @ self.out
        return x + (x.layernorm() @ self.up).gelu() @ self.down


class Model:
    """Tokens in, the next tokens out."""

    def __init__(self, device: str) -> None:
        random = np.random.default_rng(5)
        self.device = device
        self.embedding, self.position, self.head = (
            Tensor(random.standard_normal(shape).astype(np.float32), device=device).realize()
            for shape in ((VOCABULARY, WIDTH), (CONTEXT, WIDTH), (WIDTH, VOCABULARY))
        )
        self.layers = [Layer(random, device) for _ in range(LAYERS)]

    def __call__(self, tokens: Tensor, start: Extent, cached: bool = True) -> Tensor:
        """The likeliest token after each of `tokens`, (1, count), the first at `start`."""
        x = self.embedding[tokens] + self.position[start : start + tokens.shape[1]]
        for layer in self.layers:
            x = layer(x, start, cached)
        if cached:
            x = x[:, -1:]  # nobody asks for the others
        return (x.layernorm() @ self.head).argmax(-1)

    def tokens(self, values: list[int]) -> Tensor:
        return Tensor(np.array([values], np.int32), device=self.device)


def test_decoding_with_a_cache_gives_the_tokens_of_the_whole_computation(device: str) -> None:
    model = Model(device)
    start, count = Variable("start", 0, CONTEXT), Variable("count", 1, 4)
    prefill, decode = TinyJit(model.__call__), TinyJit(model.__call__)
    text, compiled = list(PROMPT), []

    def part(begin: int, size: int) -> Tensor:
        padded = text[begin : begin + size] + [0] * (4 - size)
        values = model.tokens(padded).realize()[:, : count.bind(size)]
        return prefill(values, start.bind(begin))

    for begin, size in ((0, 1), (1, 1), (2, 2), (4, 1)):  # in parts of different lengths
        last = part(begin, size)
    text.append(int(last.item()))
    while len(text) < CONTEXT:
        text.append(int(decode(model.tokens(text[-1:]), start.bind(len(text) - 1)).item()))
        compiled.append(len(compiler._compiled))
    assert len(set(compiled[1:])) == 1  # the second call is captured; none compiles after it
    reference = Model(Device.DEFAULT)
    whole = reference(reference.tokens(text[:-1]), 0, cached=False)
    assert whole.numpy()[0, len(PROMPT) - 1 :].tolist() == text[len(PROMPT) :]
    assert len(set(text[len(PROMPT) :])) > 3  # not one token for ever
    with pytest.raises(IndexOutOfRange, match=r"an axis of 16 to .* where start=16"):
        decode(model.tokens(text[-1:]), start.bind(CONTEXT))
