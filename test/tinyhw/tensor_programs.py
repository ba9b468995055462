"""Random programs of Tensors, and what must hold of them: for tests and for scripts/fuzz.py.

What the engine computes is what the graph means, as NumPy interprets it, and gradients are slopes.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from hypothesis import strategies as st

from compiler.ir import Node
from test.interpreter import interpret
from tinyhw import Tensor, storage

# Elementwise steps stay bounded, so that long programs neither overflow nor lose all precision.
UNARY = [
    lambda t: t.sin(),
    lambda t: t.sigmoid() * 2 - 1,
    lambda t: t.relu() - 0.25,
    lambda t: (-t).tanh(),
    lambda t: t.abs() * 0.5,
    lambda t: t * 0.5 + 1,
    lambda t: (t < 0.1).where(t, -t),
    lambda t: t.clamp(-1.5, 1.5),
    lambda t: (t * 0.3).exp() * 0.5,
]
SMOOTH = [
    lambda t: t.sin(),
    lambda t: t.sigmoid() * 2 - 1,
    lambda t: t * 0.5 + 1,
    lambda t: t * t * 0.5,
    lambda t: (t * 0.3).exp(),
    lambda t: (t * t + 1).log(),
    lambda t: 1 / (t * t + 1),
    lambda t: (t * t + 0.5).sqrt(),
    lambda t: t.erf(),
    lambda t: t.softplus(),
    lambda t: (t * t + 0.5) ** (t * 0.5),
    lambda t: t.prod(0, keepdim=True) + t,
    lambda t: t.var(-1, keepdim=True, correction=0) + t,
]
BINARY = [
    lambda a, b: (a + b) * 0.5,
    lambda a, b: a * b * 0.5,
    lambda a, b: a.maximum(b),
    lambda a, b: (a < b).where(a, b * 0.5),
    lambda a, b: a - b * 0.25,
]


def values(node: Node) -> np.ndarray[Any, Any]:
    """What a BUFFER holds."""
    return np.frombuffer(storage.read(node), node.dtype.name)


def drawn_move(data: st.DataObject, t: Tensor) -> Tensor:
    """A movement or reduction that the shape allows."""
    shape = [int(n) for n in t.shape]
    rank = len(shape)
    kind = data.draw(st.sampled_from(
        ["permute", "flip", "flatten", "pad", "shrink", "repeat", "sum", "max", "softmax",
         "window", "cat", "stride", "cumsum", "gather"]
    ))
    axis = data.draw(st.integers(0, rank - 1))
    match kind:
        case "permute":
            return t.permute(tuple(data.draw(st.permutations(range(rank)))))
        case "flip":
            return t.flip(axis)
        case "flatten":
            return t.reshape(-1, shape[axis])
        case "pad":
            amount = data.draw(st.tuples(st.integers(0, 2), st.integers(0, 2)))
            value = data.draw(st.sampled_from([0.0, 1.0]))
            return t.pad([amount if a == axis else None for a in range(rank)], value=value)
        case "shrink":
            start = data.draw(st.integers(0, shape[axis] - 1))
            return t.shrink([(start, shape[a]) if a == axis else None for a in range(rank)])
        case "repeat":
            return t.repeat([2 if a == axis else 1 for a in range(rank)])
        case "sum":
            return t.mean(axis, keepdim=True) + t * 0.5
        case "max":
            return t.max(axis, keepdim=rank == 1)
        case "softmax":
            return t.softmax(axis)
        case "window" if shape[-1] >= 2:
            return t.pool_windows((2,), 1, 1).mean(-1)
        case "cat":
            return t.cat(t.flip(axis) * 0.5, dim=axis)
        case "stride":
            return t[tuple(slice(None, None, 2 if a == axis else 1) for a in range(rank))]
        case "cumsum":
            return t.cumsum(axis) * (1 / shape[axis])
        case "gather":
            return t[tuple([0, -1] if a == axis else slice(None) for a in range(rank))]
        case _:
            return t


def drawn_program(data: st.DataObject, inputs: list[Tensor], length: int) -> Tensor:
    """A tensor computed from the inputs in some steps."""
    t = inputs[0]
    for _ in range(length):
        kind = data.draw(st.integers(0, 2))
        if kind == 0:
            t = data.draw(st.sampled_from(UNARY))(t)
        elif kind == 1:
            other = data.draw(st.sampled_from(inputs))
            if t.shape != other.shape:
                other = other.mean().reshape((1,) * t.ndim)
            t = data.draw(st.sampled_from(BINARY))(t, other)
        elif int(np.prod(t.shape)) < 400:
            t = drawn_move(data, t)
    return t


def drawn_inputs(data: st.DataObject) -> list[Tensor]:
    shape = tuple(data.draw(st.lists(st.integers(1, 5), min_size=1, max_size=3)))
    random = np.random.default_rng(data.draw(st.integers(0, 999)))
    return [Tensor(random.uniform(-1, 1, shape).astype(np.float32)) for _ in range(2)]


def program_computes_its_graph(data: st.DataObject) -> None:
    """Values of a program."""
    inputs = drawn_inputs(data)
    t = drawn_program(data, inputs, data.draw(st.integers(1, 8)))
    expected = interpret(t.node, values)
    np.testing.assert_allclose(t.numpy(), expected, rtol=1e-4, atol=1e-5)


def gradients_compute_their_graph(data: st.DataObject) -> None:
    """Values of a program's gradients."""
    inputs = drawn_inputs(data)
    for t in inputs:
        t.requires_grad_()
    loss = drawn_program(data, inputs, data.draw(st.integers(1, 5))).sum()
    loss.backward()
    grads = [t.grad for t in inputs if t.grad is not None]
    expected = [interpret(g.node, values) for g in grads]
    loss.realize(*grads)
    for grad, wanted in zip(grads, expected, strict=True):
        np.testing.assert_allclose(grad.numpy(), wanted, rtol=1e-3, atol=1e-4)


def gradients_are_slopes(data: st.DataObject) -> None:
    """Interpreted in float64 throughout, against central differences: no kernels are run."""
    shape = tuple(data.draw(st.lists(st.integers(1, 4), min_size=1, max_size=3)))
    random = np.random.default_rng(data.draw(st.integers(0, 999)))
    x = random.uniform(-1, 1, shape)
    t = start = Tensor(x)
    for _ in range(data.draw(st.integers(1, 5))):
        if data.draw(st.booleans()):
            t = data.draw(st.sampled_from(SMOOTH))(t)
        elif int(np.prod(t.shape)) < 100:
            t = drawn_move(data, t)
    loss = (t * t).sum()
    (gradient,) = loss.gradient(start)
    slope = random.uniform(-1, 1, shape)

    def at(node: Node, point: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
        return interpret(node, lambda b: point.reshape(-1) if b is start.node.base else values(b))

    exact = float((at(gradient.node, x) * slope).sum())
    step = 1e-5
    ahead, behind = (float(at(loss.node, x + sign * step * slope)) for sign in (1, -1))
    np.testing.assert_allclose(exact, (ahead - behind) / (2 * step), rtol=1e-4, atol=1e-5)
