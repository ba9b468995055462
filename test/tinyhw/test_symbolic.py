"""Shapes, positions and numbers that a Variable decides: against NumPy, for several values."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from compiler.errors import NotAnIndex, NotDecided
from compiler.ir import Node, upper
from tinyhw import Tensor, TinyJit, Variable
from tinyhw.errors import (
    IndexOutOfRange,
    JitError,
    NotSupported,
    ShapeError,
    TinyhwError,
    VariableError,
)

Array = np.ndarray[Any, Any]
N = 8
ROWS = np.random.default_rng(0).standard_normal((N, 4)).astype(np.float32)
HEADS = np.random.default_rng(1).standard_normal((2, 3, N, 4)).astype(np.float32)


def softmax(x: Array) -> Array:
    e = np.exp(x - x.max(-1, keepdims=True))
    return e / e.sum(-1, keepdims=True)


def attention(x: Array, mask: Array | bool = True) -> Array:
    return softmax(np.where(mask, x @ x.T / 2, -np.inf)) @ x


X, H = (lambda: Tensor(ROWS)), (lambda: Tensor(HEADS))
CASES: list[tuple[str, Callable[[Node], Tensor], Callable[[int], Any]]] = [
    ("elementwise", lambda n: X()[:n].exp() * 2, lambda n: np.exp(ROWS[:n]) * 2),
    ("sum over it", lambda n: X()[:n].sum(0), lambda n: ROWS[:n].sum(0)),
    ("sum over others", lambda n: X()[:n].sum(1), lambda n: ROWS[:n].sum(1)),
    ("variance", lambda n: X()[: n + 1].var(0), lambda n: ROWS[: n + 1].var(0, ddof=1)),
    ("softmax", lambda n: X()[:n].T.softmax(-1), lambda n: softmax(ROWS[:n].T)),
    ("reshape", lambda n: X()[:n].T.reshape(-1), lambda n: ROWS[:n].T.reshape(-1)),
    ("reshape of a sum", lambda n: X()[: n + 1].T.reshape(2, -1, 2).flatten(1),
     lambda n: ROWS[: n + 1].T.reshape(2, -1)),
    ("flip", lambda n: X()[:n].flip(0), lambda n: ROWS[:n][::-1]),
    ("expand", lambda n: X()[:, :1].expand(N, n), lambda n: np.repeat(ROWS[:, :1], n, 1)),
    ("repeat heads", lambda n: H()[:, :, :n].repeat_interleave(2, 1),
     lambda n: HEADS[:, :, :n].repeat(2, 1)),
    ("cat", lambda n: X()[:n].cat(X()[:2], X()[n:]),
     lambda n: np.concatenate((ROWS[:n], ROWS[:2], ROWS[n:]))),
    ("pad", lambda n: X()[:n].pad(((1, N - n), None), value=2.0),
     lambda n: np.pad(ROWS[:n], ((1, N - n), (0, 0)), constant_values=2)),
    ("product over it", lambda n: X()[:n].T @ X()[:n], lambda n: ROWS[:n].T @ ROWS[:n]),
    ("product", lambda n: X()[:n] @ X()[:n].T, lambda n: ROWS[:n] @ ROWS[:n].T),
    ("attention", lambda n: X()[:n].scaled_dot_product_attention(X()[:n], X()[:n]),
     lambda n: attention(ROWS[:n])),
    ("causal attention",
     lambda n: X()[:n].scaled_dot_product_attention(X()[:n], X()[:n], is_causal=True),
     lambda n: attention(ROWS[:n], np.tri(n, dtype=bool))),
    ("stored between", lambda n: (X()[:n] * 2).contiguous() + 1, lambda n: ROWS[:n] * 2 + 1),
    ("a position", lambda n: X()[n - 1], lambda n: ROWS[n - 1]),
    ("a part", lambda n: X()[n - 1 : n + 1], lambda n: ROWS[n - 1 : n + 1]),
    ("from the end", lambda n: X()[:n][-1:], lambda n: ROWS[:n][-1:]),
    ("list of positions", lambda n: X()[:n][[0, -1]], lambda n: ROWS[:n][[0, -1]]),
    ("range", lambda n: X()[Tensor.arange(n, n + 2) - 1], lambda n: ROWS[n - 1 : n + 1]),
    ("as a number", lambda n: (X() + n) * n / (n + 1), lambda n: (ROWS + n) * n / (n + 1)),
    ("as a tensor", lambda n: Tensor(n) * 3, lambda n: np.int32(n * 3)),
    ("compared", lambda n: (Tensor.arange(N) < n).where(1, 0), lambda n: (np.arange(N) < n) * 1),
    ("diagonal", lambda n: Tensor.ones(4, n + 2).triu(n),
     lambda n: np.triu(np.ones((4, n + 2)), n)),
    ("roll", lambda n: X().roll(n, 0), lambda n: np.roll(ROWS, n, 0)),
    ("quotient", lambda n: X()[(n - 1) // 2 + n % 2], lambda n: ROWS[(n - 1) // 2 + n % 2]),
]


def read(tensor: Tensor) -> Array:
    """The values, with zeros up to the greatest extents."""
    tensor = tensor.pad([(0, upper(extent) - extent) for extent in tensor.shape])
    return tensor.numpy()


@pytest.mark.parametrize("case", CASES, ids=lambda case: case[0])
def test_a_variable_extent_computes_what_its_value_does(case: Any) -> None:
    _, ours, theirs = case
    n = Variable("n", 1, N - 1)
    for value in (1, 4, N - 1):
        found, expected = read(ours(n.bind(value))), np.asarray(theirs(value))
        wanted = np.zeros(found.shape, expected.dtype)
        wanted[tuple(map(slice, expected.shape))] = expected
        np.testing.assert_allclose(found, wanted, rtol=1e-4, atol=1e-5)


def test_nothing_of_an_axis() -> None:
    n = Variable("n", 0, N)
    for value in (0, 3, 0):
        part = Tensor(ROWS)[: n.bind(value)]
        np.testing.assert_allclose(part.sum(0).numpy(), ROWS[:value].sum(0), rtol=1e-5)
        assert read(part.T.softmax(-1)).sum() == pytest.approx(4 if value else 0)
        assert part.max().item() == (ROWS[:value].max() if value else -np.inf)
        assert part[:, 0:0].reshape(-1).numpy().shape == (0,)


def test_the_gradient_of_a_part() -> None:
    n = Variable("n", 1, N)
    weight = Tensor(ROWS, requires_grad=True)
    (weight[: n.bind(3)] * Tensor(ROWS)[: n.bind(3)]).sum().backward()
    np.testing.assert_array_equal(weight.grad.numpy(), np.where(np.arange(N)[:, None] < 3, ROWS, 0))


WIDE = Variable("wide", 0, 20)
SHORT = Variable("short", 1, N)


@pytest.mark.parametrize(
    "wrong, error, says",
    [
        (lambda: X()[: WIDE.bind(12)], IndexOutOfRange, r"axis of 8 to \[0, wide\).* wide=12"),
        (lambda: X()[WIDE.bind(8)], IndexOutOfRange, r"\[wide, wide \+ 1\).* where wide=8"),
        (lambda: X()[SHORT.bind(5) : WIDE.bind(2)], IndexOutOfRange, "where short=5, wide=2"),
        (lambda: X()[: SHORT.bind(2)][:5], IndexOutOfRange, "axis of short to .* short=2"),
        (lambda: X().pad(((0, 8 - WIDE.bind(9)), None)), IndexOutOfRange, "Cannot pad"),
        (lambda: Tensor.arange(WIDE.bind(9), 8), IndexOutOfRange, "too short where wide=9"),
        (lambda: X()[: SHORT.bind(2)] + X()[: WIDE.bind(2)], ShapeError, "meet in one axis"),
        (lambda: X()[:SHORT].sum().item(), VariableError, "has no value"),
        (lambda: (X()[: SHORT.bind(2)].sum() + X()[: SHORT.bind(3)].sum()).item(), VariableError,
         "bound to 2 and to 3"),
        (lambda: (X()[: SHORT.bind(2)].sum() + Variable("short", 0, 9).bind(2)).item(),
         VariableError, r"Two Variables are named short: one of \[1, 8\], one of \[0, 9\]"),
        (lambda: X()[: SHORT.bind(2)].numpy(), ShapeError, "cannot be read"),
        (lambda: X()[: SHORT.bind(2) : 2], NotSupported, "a step of 1"),
        (lambda: X()[: SHORT.bind(2)].sort(0), ShapeError, "depends on a Variable"),
        (lambda: X()[: SHORT.bind(2)].clone(), NotSupported, "storage of its own"),
        (lambda: (X()[: SHORT.bind(2)] * 2).assign(X()[: SHORT.bind(2)]), NotSupported, "fixed"),
        (lambda: SHORT.bind(2) * X(), NotAnIndex, "the Tensor stands first"),
        (lambda: bool(SHORT.bind(2) < 3), NotDecided, "a Variable decides"),
    ],
)
def test_what_a_variable_cannot_do_is_said(
    wrong: Callable[[], object], error: type[TinyhwError], says: str
) -> None:
    with pytest.raises(error, match=says):
        wrong()


# ---- captures ----


def test_a_position_beyond_the_end_is_refused_by_replays_too() -> None:
    cache = Tensor.zeros(N).contiguous().realize()
    start, count = Variable("start", 0, N), Variable("count", 1, 4)

    @TinyJit
    def fill(start: Node, count: Node) -> Tensor:
        cache[start : start + count].assign(Tensor.ones(1).expand(count))
        return cache.sum()

    for begin, size, total in ((0, 1, 1), (1, 2, 3), (4, 4, 7), (3, 1, 8)):
        assert fill(start.bind(begin), count.bind(size)).item() == total
    for begin, size in ((N, 1), (5, 4)):
        with pytest.raises(IndexOutOfRange, match=f"where count={size}, start={begin}"):
            fill(start.bind(begin), count.bind(size))
    assert cache.tolist() == [1] * N


def test_a_result_with_a_variable_extent_has_that_of_each_call() -> None:
    n = Variable("n", 1, N)
    jit = TinyJit(lambda x, n: x[:n] * 2)
    x = Tensor(ROWS).realize()
    for value in (2, 5, 1, 8):
        result = jit(x, n.bind(value))
        assert result.shape == (n.bind(value), 4)
        np.testing.assert_allclose(result.sum(0).numpy(), ROWS[:value].sum(0) * 2, rtol=1e-5)


def test_sums_of_variables_are_arguments() -> None:
    n = Variable("n", 1, N - 1)
    jit = TinyJit(lambda x, end: x[:end].sum())
    x = Tensor(ROWS).realize()
    for value in (2, 5, 1):
        assert jit(x, n.bind(value) + 1).item() == pytest.approx(ROWS[: value + 1].sum(), rel=1e-4)
    with pytest.raises(JitError, match=r"called with n \+ 2, but was captured with n \+ 1"):
        jit(x, n.bind(1) + 2)


def test_a_variable_for_several_devices() -> None:
    n = Variable("n", 1, N)
    first, second = (Tensor(ROWS, device=name).realize() for name in ("LLVM", "LLVM:1"))

    @TinyJit
    def across(n: Node) -> Tensor:
        moved = (first[:n] * 2).to("LLVM:1")
        return (moved * second[:n]).sum(0).to("LLVM") + n

    for value in (2, 5, 1, 8):
        expected = (2 * ROWS[:value] ** 2).sum(0) + value
        np.testing.assert_allclose(across(n.bind(value)).numpy(), expected, rtol=1e-5)


def test_a_capture_takes_in_one_that_is_captured_already() -> None:
    total = Tensor([0]).realize()
    step = TinyJit(lambda x: total.assign(total + x).clone())
    one = Tensor([1]).realize()
    for _ in range(3):
        step(one)
    thrice = TinyJit(lambda x: [step(x) for _ in range(3)][-1] * 2)
    for i in range(4):
        assert thrice(one).item() == 2 * (6 + 3 * i)
    assert total.item() == 15 and step(one).item() == 16
