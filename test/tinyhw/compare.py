"""Runs one computation in tinyhw and in PyTorch and compares values and gradients."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pytest

from tinyhw import Tensor

torch = pytest.importorskip("torch", reason="PyTorch is the reference: tinyhw[reference]")
torch.set_num_threads(1)

Array = np.ndarray[Any, Any]
SPECIAL = np.array(
    [0.0, -0.0, 1.0, -1.0, 0.5, -0.5, 1.5, 2.5, -2.5, np.inf, -np.inf, np.nan, 1e-30]
)


def floats(*shape: int, seed: int = 0, low: float = -2.0, high: float = 2.0) -> Array:
    """Float32 values, none of which is special."""
    return np.random.default_rng(seed).uniform(low, high, shape).astype(np.float32)


def integers(
    *shape: int, low: int = -9, high: int = 10, dtype: str = "int32", seed: int = 0
) -> Array:
    """Whole numbers in [low, high)."""
    return np.random.default_rng(seed).integers(low, high, shape).astype(dtype)


def equal(found: Tensor | Array, expected: Any, rtol: float = 1e-5, atol: float = 1e-6) -> None:
    """The same shape, dtype and values; NaN equals itself."""
    values = found.numpy() if isinstance(found, Tensor) else found
    wanted = expected.detach().numpy() if isinstance(expected, torch.Tensor) else expected
    wanted = np.asarray(wanted)
    assert values.shape == wanted.shape
    assert values.dtype == wanted.dtype, (values.dtype, wanted.dtype)
    np.testing.assert_allclose(values, wanted, rtol=rtol, atol=atol, equal_nan=True)


def same(
    ours: Callable[..., Any],
    *arrays: Array,
    theirs: Callable[..., Any] | None = None,
    gradient: bool = True,
    rtol: float = 1e-5,
    atol: float = 1e-6,
    device: str | None = None,
) -> None:
    """`ours` of Tensors gives what `theirs` (the same function by default) gives of torch's.

    Both may give several results.
    Each float input gets a gradient from a fixed weighting of the output's elements.
    """
    a = [Tensor(x, device=device) for x in arrays]
    b = [torch.tensor(x) for x in arrays]
    for ta, tb in zip(a, b, strict=True):
        if gradient and tb.is_floating_point():
            ta.requires_grad_()
            tb.requires_grad_()
    found, expected = ours(*a), (theirs or ours)(*b)
    several = isinstance(expected, tuple | list)
    results = list(zip(found, expected, strict=True)) if several else [(found, expected)]
    if gradient:
        roots = [(o, t) for o, t in results if t.requires_grad]
        for i, (ours_, theirs_) in enumerate(roots):
            weight = floats(*theirs_.shape, seed=99 + i, low=0.5, high=1.5)
            weight = weight.astype(ours_.dtype.name)
            ours_.backward(Tensor(weight, device=device))
            theirs_.backward(torch.tensor(weight), retain_graph=True)
        if roots:
            results += [(ta.grad, tb.grad) for ta, tb in zip(a, b, strict=True) if tb.requires_grad]
    Tensor.realize(*(ours_ for ours_, _ in results if ours_ is not None))
    for ours_, theirs_ in results:
        assert (ours_ is None) == (theirs_ is None)
        if ours_ is not None:
            equal(ours_, theirs_, rtol, atol)


def forward(ours: Callable[..., Any], *arrays: Array, **options: Any) -> None:
    """`same` without gradients."""
    same(ours, *arrays, gradient=False, **options)


def names(cases: Sequence[Any]) -> list[str]:
    """Ids for parameters: the first member of each case."""
    return [str(case[0]) for case in cases]
