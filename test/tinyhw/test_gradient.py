"""Backward: which tensors get a gradient, when, and how it passes through storage and views."""

from __future__ import annotations

import numpy as np
import pytest

from compiler.dtype import dtypes
from compiler.ir import Node
from test.interpreter import interpret
from tinyhw import Tensor, no_grad
from tinyhw.errors import DtypeError, GradientError, ShapeError
from tinyhw.gradient import gradients


def test_the_front_page() -> None:
    x = Tensor.eye(3, requires_grad=True)
    y = Tensor([[2.0, 0, -2.0]], requires_grad=True)
    y.matmul(x).sum().backward()
    assert x.grad.tolist() == [[2, 2, 2], [0, 0, 0], [-2, -2, -2]]
    assert y.grad.tolist() == [[1, 1, 1]]


def test_gradients_add_up_until_they_are_forgotten() -> None:
    x = Tensor([1.0, 2.0], requires_grad=True)
    (x * x).sum().backward()
    (x * 3).sum().backward()
    assert x.grad.tolist() == [5, 7]
    x.grad = None
    (x * 3).sum().backward()
    assert x.grad.tolist() == [3, 3]


def test_only_leaves_keep_a_gradient() -> None:
    x = Tensor([1.0, 2.0], requires_grad=True)
    y = x * 2
    y.sum().backward()
    assert y.requires_grad and y.grad is None
    assert x.grad.tolist() == [2, 2]


def test_parameters_that_start_equal_have_gradients_of_their_own() -> None:
    a = Tensor.zeros(3, requires_grad=True)
    b = Tensor.zeros(3, requires_grad=True)
    (a * 2 + b * 3 + Tensor.zeros(3)).sum().backward()
    assert a.grad.tolist() == [2, 2, 2]
    assert b.grad.tolist() == [3, 3, 3]


def test_the_gradient_of_what_was_read_before_backward() -> None:
    x = Tensor([1.0, 2.0, 3.0], requires_grad=True)
    y = x.exp()
    y.numpy()
    z = (y * y).sum()
    z.item()
    z.backward()
    np.testing.assert_allclose(x.grad.numpy(), 2 * np.exp(2 * np.array([1, 2, 3.0])), rtol=1e-5)


def test_the_gradient_of_a_view_that_was_read_before_backward() -> None:
    x = Tensor(np.arange(6, dtype=np.float32).reshape(2, 3), requires_grad=True)
    y = (x * x).T
    y.realize()
    y[1].sum().backward()
    np.testing.assert_array_equal(x.grad.numpy(), [[0, 2, 0], [0, 8, 0]])


def test_what_was_overwritten_since_has_no_gradient_and_says_so() -> None:
    x = Tensor([1.0, 2.0], requires_grad=True)
    z = (x * x).sum()
    z.item()
    x.assign(Tensor([5.0, 5.0]))
    with pytest.raises(GradientError, match="overwritten since"):
        z.backward()


def test_random_numbers_that_were_read_before_backward() -> None:
    Tensor.manual_seed(2)
    x = Tensor.ones(64, requires_grad=True)
    with Tensor.train():
        y = x.dropout(0.5)
    mask = y.numpy()
    y.sum().backward()
    np.testing.assert_array_equal(x.grad.numpy(), mask)
    with Tensor.train():
        for pending in (False, True):
            y = x.dropout(0.5)
            if not pending:
                y = y.dropout(0.5)
            later = Tensor.rand(3) if pending else None
            y.numpy()
            with pytest.raises(GradientError, match="overwritten since"):
                y.sum().backward()
            del later


def test_a_lazy_parameter_is_initialised_once() -> None:
    Tensor.manual_seed(1)
    x = Tensor.rand(3, requires_grad=True)
    z = (x * x).sum()
    z.item()
    before = x.numpy()
    z.backward()
    np.testing.assert_allclose(x.grad.numpy(), 2 * before, rtol=1e-6)
    np.testing.assert_array_equal(x.numpy(), before)


def test_detach_stops_gradients_before_and_after_realizing() -> None:
    x = Tensor([1.0, 2.0], requires_grad=True)
    y = x * 3
    d = y.detach()
    (y * d).sum().backward()
    assert x.grad.tolist() == [9, 18]
    x.grad = None
    y.realize()
    d.realize()
    assert d.requires_grad is False
    (y * d).sum().backward()
    assert x.grad.tolist() == [9, 18]


def test_no_grad() -> None:
    x = Tensor([1.0, 2.0], requires_grad=True)
    with no_grad():
        y = x * 3
    assert not y.requires_grad
    (y * x).sum().backward()
    assert x.grad.tolist() == [3, 6]
    with pytest.raises(GradientError, match="depends on none"):
        y.sum().backward()


def test_gradient_of_targets_that_are_no_leaves() -> None:
    x = Tensor([[1.0, 2.0], [3.0, 4.0]])
    y = x * x
    t = y.T
    loss = (t[0] * 5).sum() + y.sum()
    by_x, by_y, by_t = loss.gradient(x, y, t)
    assert by_y.tolist() == [[6, 1], [6, 1]]
    assert by_t.tolist() == [[6, 6], [1, 1]]
    assert by_x.tolist() == [[12, 4], [36, 8]]
    with pytest.raises(GradientError, match="does not depend"):
        loss.gradient(Tensor([1.0]))


def test_second_derivatives() -> None:
    x = Tensor([0.5, 1.0, 2.0])
    (first,) = (x**3).sum().gradient(x)
    (second,) = first.sum().gradient(x)
    np.testing.assert_allclose(second.numpy(), [3, 6, 12], rtol=1e-6)
    (first,) = x.sin().sum().gradient(x)
    (second,) = first.sum().gradient(x)
    np.testing.assert_allclose(second.numpy(), -np.sin(x.numpy()), rtol=1e-5)


def test_backward_with_a_gradient_from_above() -> None:
    x = Tensor([1.0, 2.0], requires_grad=True)
    (x * 2).backward(Tensor([3.0, 4.0]))
    assert x.grad.tolist() == [6, 8]
    with pytest.raises(GradientError, match="needs `gradient`"):
        (x * 2).backward()
    with pytest.raises(ShapeError, match=r"\(3,\) meets"):
        (x * 2).backward(Tensor([1.0, 2.0, 3.0]))


def test_gradients_of_casts() -> None:
    x = Tensor([1.0, 2.0], requires_grad=True)
    (x.half() * 2).float().sum().backward()
    assert x.grad.dtype is dtypes.float32
    assert x.grad.tolist() == [2, 2]
    with pytest.raises(DtypeError, match="Only floats"):
        Tensor([1, 2], requires_grad=True)


def test_gradients_cross_devices() -> None:
    x = Tensor([1.0, 2.0], requires_grad=True)
    other = "CLANG" if x.device != "CLANG" else "LLVM"
    (x.to(other) * 3).sum().backward()
    assert x.grad.device == x.device
    assert interpreted(x.grad) == [3, 3]


def interpreted(tensor: Tensor) -> object:
    """The values that the graph means, read without the other device."""
    from tinyhw import storage

    def read(node: Node) -> np.ndarray:
        return np.frombuffer(storage.read(node), node.dtype.name)

    return interpret(tensor.node, read).tolist()


def test_a_deep_graph_needs_no_recursion() -> None:
    x = Tensor([1.0], requires_grad=True)
    y = x
    for _ in range(5000):
        y = y + x
    (node,) = gradients(y.node, Node.const(1.0, dtypes.float32).reshape((1,)), [x.node])
    assert node is not None


def test_without_marks_every_stored_float_gets_a_gradient() -> None:
    x, kept = Tensor([1.0, 2.0]), Tensor([5.0, 6.0], requires_grad=False)
    drawn, whole = Tensor.rand(2), Tensor([1, 2])
    (x * kept * drawn + whole).sum().backward()
    assert x.grad is not None and drawn.grad is not None
    np.testing.assert_allclose(x.grad.numpy(), [5, 6] * drawn.numpy())
    np.testing.assert_allclose(drawn.grad.numpy(), [5, 12])
    assert kept.grad is None and whole.grad is None
    (x * x).sum().backward()  # adds to what is there
    np.testing.assert_allclose(x.grad.numpy(), [5, 6] * drawn.numpy() + [2, 4])
    marked = Tensor([3.0], requires_grad=True)
    before = x.grad
    (x * marked).sum().backward()  # a mark says that only marked ones are asked for
    assert x.grad is before
    assert marked.grad.item() == 3.0
    with pytest.raises(GradientError, match="depends on none"):
        (Tensor([1, 2]) * 2.0).sum().backward()
