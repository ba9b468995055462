"""What a case of the op table is, and how the modules beside this one add theirs.

The shapes have tails: none is a multiple of a wave or a vector, so that the last lanes have
something to get wrong.
"""

from __future__ import annotations

import math
import os
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from test.tinyhw.compare import Array, floats, torch

F = torch.nn.functional
Function = Callable[..., Any]


@dataclass(frozen=True)
class Op:
    """`ours` of tensors of `inputs` gives what `theirs` gives of torch's tensors.

    A variant is one more case of a method that the table has: it runs on one device only, where
    there is little time.
    """

    name: str
    ours: Function
    theirs: Function
    inputs: tuple[Array, ...]
    gradient: bool = True
    rtol: float = 3e-5
    atol: float = 5e-6
    variant: bool = False


OPS: list[Op] = []
SPECIAL = np.array(
    [0.0, -0.0, 1, -1, 0.5, -2.5, math.inf, -math.inf, math.nan, 1e-40, 3e38], np.float32
)


def case(
    name: str, ours: Function, *inputs: Array, theirs: Function | None = None, **options: Any
) -> None:
    """Adds a case; without `theirs` the same expression is valid in PyTorch."""
    assert all(op.name != name for op in OPS), f"two cases are named {name}"
    OPS.append(Op(name, ours, theirs or ours, inputs, **options))


def variant(name: str, ours: Function, *inputs: Array, **options: Any) -> None:
    """Adds one more case of a method."""
    case(name, ours, *inputs, variant=True, **options)


def rare(name: str, ours: Function, *inputs: Array, **options: Any) -> None:
    """Adds a variant for thorough runs, of those with TINYHW_FULL=1."""
    if os.environ.get("TINYHW_FULL") == "1":
        variant(name, ours, *inputs, **options)


def method(name: str, *inputs: Array, theirs: Function | None = None, **options: Any) -> None:
    """Adds the case of a method without arguments, that PyTorch has by the same name."""

    def call(x: Any, *others: Any) -> Any:
        return getattr(x, name)(*others)

    case(options.pop("label", name), call, *inputs, theirs=theirs, **options)


def specials(*names: str, operands: int = 1, **options: Any) -> None:
    """Adds variants of methods for zeros, infinities, NaN, a denormal and a huge number."""
    for name in names:
        inputs = (SPECIAL,) if operands == 1 else (SPECIAL[:, None], SPECIAL)
        method(name, *inputs, label=f"{name} of special values", gradient=False, variant=True,
               **options)


def x(low: float = -2, high: float = 2, seed: int = 0) -> Array:
    """A matrix of floats in a domain."""
    return floats(5, 37, low=low, high=high, seed=seed)


def positions(found: Any) -> Any:
    """PyTorch's (values, positions) with positions as int32, as tinygrad has them."""
    return found[0], found[1].to(torch.int32)
