"""Runs one computation in tinyhw and in PyTorch and compares values and gradients."""

from __future__ import annotations

import importlib.util
import os
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pytest

from test.tinyhw.expected import Expected, Nothing
from tinyhw import Tensor

torch: Any
if "TINYHW_EXPECTED" in os.environ and importlib.util.find_spec("torch") is None:
    torch = Nothing()  # what it would give is in a file
else:
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
    known = isinstance(expected, np.ndarray | np.generic | int | float)
    wanted = np.asarray(expected if known else _array(expected))
    assert values.shape == wanted.shape
    assert values.dtype == wanted.dtype, (values.dtype, wanted.dtype)
    np.testing.assert_allclose(values, wanted, rtol=rtol, atol=atol, equal_nan=True)


def _array(value: Any) -> Array:
    """A tensor of torch's, or what NumPy makes an array of."""
    array: Array = np.asarray(value.detach().numpy() if isinstance(value, torch.Tensor) else value)
    return array


def _weight(shape: tuple[int, ...], number: int, dtype: str) -> Array:
    """By which the elements of a result are added up, whose gradient is asked for."""
    return floats(*shape, seed=99 + number, low=0.5, high=1.5).astype(dtype)


def expected_of(theirs: Callable[..., Any], arrays: Sequence[Array], gradient: bool) -> Expected:
    """What torch gives."""
    given = [torch.tensor(x) for x in arrays]
    for tensor in given:
        if gradient and tensor.is_floating_point():
            tensor.requires_grad_()
    found = theirs(*given)
    several = isinstance(found, tuple | list)
    results = list(found) if several else [found]
    smooth = [gradient and bool(result.requires_grad) for result in results]
    roots = [result for result, is_smooth in zip(results, smooth, strict=True) if is_smooth]
    for number, root in enumerate(roots):
        weight = _weight(tuple(root.shape), number, str(root.dtype).removeprefix("torch."))
        root.backward(torch.tensor(weight), retain_graph=True)
    gradients = {
        at: None if tensor.grad is None else _array(tensor.grad)
        for at, tensor in enumerate(given) if roots and tensor.requires_grad
    }
    return Expected(several, [_array(result) for result in results], smooth, gradients)


def same(
    ours: Callable[..., Any],
    *arrays: Array,
    theirs: Callable[..., Any] | None = None,
    gradient: bool = True,
    rtol: float = 1e-5,
    atol: float = 1e-6,
    device: str | None = None,
    expected: Expected | None = None,
) -> None:
    """`ours` of Tensors gives what `theirs` (the same function by default) gives of torch's.

    Both may give several results. `expected`: what torch has given, if that is known.
    Each float input gets a gradient from a fixed weighting of the output's elements.
    """
    wanted = expected or expected_of(theirs or ours, arrays, gradient)
    given = [Tensor(x, device=device) for x in arrays]
    for tensor in given:
        if gradient and tensor.is_floating_point():
            tensor.requires_grad_()
    found = ours(*given)
    results = list(found) if wanted.several else [found]
    assert len(results) == len(wanted.results)
    roots = [o for o, is_smooth in zip(results, wanted.smooth, strict=True) if is_smooth]
    for number, root in enumerate(roots):
        root.backward(Tensor(_weight(root.shape, number, root.dtype.name), device=device))
    pairs = list(zip(results, wanted.results, strict=True))
    pairs += [(given[at].grad, value) for at, value in wanted.gradients.items()]
    Tensor.realize(*(ours_ for ours_, _ in pairs if ours_ is not None))
    for ours_, theirs_ in pairs:
        assert (ours_ is None) == (theirs_ is None)
        if ours_ is not None:
            equal(ours_, theirs_, rtol, atol)


def forward(ours: Callable[..., Any], *arrays: Array, **options: Any) -> None:
    """`same` without gradients."""
    same(ours, *arrays, gradient=False, **options)


def names(cases: Sequence[Any]) -> list[str]:
    """Ids for parameters: the first member of each case."""
    return [str(case[0]) for case in cases]
