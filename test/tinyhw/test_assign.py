"""Writes: assign and slice assignment, and which tensors see them."""

from __future__ import annotations

import numpy as np
import pytest

from tinyhw import Tensor
from tinyhw.errors import DeviceError, DtypeError, GradientError, NotSupported, ShapeError


def test_views_see_a_write_and_others_do_not() -> None:
    a = Tensor(np.arange(6, dtype=np.float32)).realize()
    view, row, copy, sum_ = a.reshape(2, 3), a.reshape(2, 3)[1], a.clone(), a.sum()
    a.assign(a + 10)
    assert a.tolist() == [10, 11, 12, 13, 14, 15]
    assert view.tolist() == [[10, 11, 12], [13, 14, 15]]
    assert row.tolist() == [13, 14, 15]
    assert copy.tolist() == [0, 1, 2, 3, 4, 5]
    assert sum_.item() == 15


def test_a_write_through_a_view_reaches_the_whole() -> None:
    a = Tensor(np.zeros((2, 3), np.float32))
    row = a[1]
    row.assign(Tensor([1.0, 2.0, 3.0]))
    a[:, 0].assign(Tensor([7.0, 8.0]))
    assert a.tolist() == [[7, 0, 0], [8, 2, 3]]
    assert row.tolist() == [8, 2, 3]


def test_equal_computations_are_written_apart() -> None:
    x = Tensor([1.0, 2.0])
    a, b = x + 1, x + 1
    a.realize()
    a.assign(a * 10)
    assert (a.tolist(), b.tolist()) == ([20, 30], [2, 3])
    c, d = Tensor.zeros(3).contiguous(), Tensor.zeros(3).contiguous()
    c.realize(d)
    d.assign(d + 1)
    assert (c.tolist(), d.tolist()) == ([0, 0, 0], [1, 1, 1])


def test_constants_become_storage_when_written() -> None:
    a = Tensor.zeros(2, 3)
    row = a[0]
    row.assign(Tensor([1.0, 2.0, 3.0]))
    assert a.tolist() == [[1, 2, 3], [0, 0, 0]]
    assert Tensor.zeros(2, 3).tolist() == [[0, 0, 0], [0, 0, 0]]


def test_writes_happen_once_and_in_order() -> None:
    a = Tensor([1.0, 2.0]).realize()
    for _ in range(5):
        a.assign(a * 2)
    assert a.tolist() == [32, 64]
    assert (a + 1).tolist() == [33, 65]
    assert a.tolist() == [32, 64]


def test_a_write_that_reads_its_own_storage_elsewhere() -> None:
    a = Tensor(np.arange(9, dtype=np.float32).reshape(3, 3))
    a.assign(a.T + a)
    assert a.tolist() == [[0, 4, 8], [4, 8, 12], [8, 12, 16]]
    a[:2].assign(a[1:])
    assert a.tolist() == [[4, 8, 12], [8, 12, 16], [8, 12, 16]]


def test_pending_readers_keep_the_old_values() -> None:
    a = Tensor([1.0, 2.0]).realize()
    before = a * 10
    a.assign(a + 1)
    after = a * 10
    assert after.tolist() == [20, 30]
    assert before.tolist() == [10, 20]


def test_setitem() -> None:
    x = np.arange(12, dtype=np.float32).reshape(3, 4)
    t = Tensor(x)
    t[1] = 5
    x[1] = 5
    t[:, ::2] = Tensor([[1.0, 2.0]])
    x[:, ::2] = [1, 2]
    t[0, -1] = 9.5
    x[0, -1] = 9.5
    t[::-1, 1:3] = np.float32([[1, 2], [3, 4], [5, 6]])
    x[::-1, 1:3] = [[1, 2], [3, 4], [5, 6]]
    np.testing.assert_array_equal(t.numpy(), x)


@pytest.mark.parametrize("extent", [4, 5, 7])
@pytest.mark.parametrize("step", [2, 3, -2])
def test_every_other_element_is_written(extent: int, step: int) -> None:
    a = Tensor(np.zeros((extent, 5), np.float32))
    expected = np.zeros((extent, 5), np.float32)
    a[::step, 1::2] = 1
    expected[::step, 1::2] = 1
    part = a.T[::2]
    part += 2
    expected.T[::2] += 2
    np.testing.assert_array_equal(a.numpy(), expected)


def test_setitem_at_positions() -> None:
    x = np.arange(12, dtype=np.float32).reshape(3, 4)
    t = Tensor(x)
    t[[0, 2]] = 7
    x[[0, 2]] = 7
    t[:, [1, -1]] = Tensor([[1.0, 2.0]])
    x[:, [1, -1]] = [1, 2]
    t[[0, 1], Tensor([2, 3])] = [5.0, 6.0]
    x[[0, 1], [2, 3]] = [5, 6]
    np.testing.assert_array_equal(t.numpy(), x)
    u = Tensor([0, 0, 0])
    u[[1, 1, 1]] = [1, 2, 3]
    assert u.tolist() == [0, 3, 0]
    u[[]] = 5
    assert u.tolist() == [0, 3, 0]


def test_setitem_of_integers_and_of_lazy_tensors() -> None:
    t = Tensor.arange(6).reshape(2, 3)
    t[1, 1:] = -1
    assert t.tolist() == [[0, 1, 2], [3, -1, -1]]
    s = Tensor([1.0, 2.0, 3.0]) * 2
    s[0] = 100
    assert s.tolist() == [100, 4, 6]


def test_in_place_operators() -> None:
    a = Tensor([1.0, 2.0]).realize()
    b = a
    a += 1
    a *= 2
    a -= Tensor([1.0, 1.0])
    a /= 2
    assert a is b and b.tolist() == [1.5, 2.5]
    a[0] += 3
    assert a.tolist() == [4.5, 2.5]
    x = Tensor([1.0], requires_grad=True)
    y = x * 1
    y += 2
    y.sum().backward()
    assert x.grad.tolist() == [1]


def test_in_place_operators_reach_views_of_what_has_no_storage_yet() -> None:
    lazy = Tensor(np.zeros((2, 3), np.float32)) + 1
    view, apart = lazy.T, lazy * 1
    lazy += 1
    assert view.tolist() == [[2, 2]] * 3
    assert apart.tolist() == [[1, 1, 1]] * 2
    view *= 2
    assert lazy.tolist() == [[4, 4, 4]] * 2


def test_parameters_may_be_assigned() -> None:
    w = Tensor([1.0, 2.0], requires_grad=True)
    (w * w).sum().backward()
    w.assign(w.detach() - 0.5 * w.grad)
    assert w.tolist() == [0, 0]
    assert w.requires_grad
    (w * 3).sum().backward()
    assert w.grad.tolist() == [5, 7]


def test_detached_tensors_share_storage_but_no_gradient() -> None:
    w = Tensor([1.0, 2.0], requires_grad=True)
    d = w.detach()
    d.assign(Tensor([3.0, 4.0]))
    assert w.tolist() == [3, 4]
    (w * d).sum().backward()
    assert w.grad.tolist() == [3, 4]


def test_wrong_writes_are_named() -> None:
    a = Tensor([1.0, 2.0])
    with pytest.raises(ShapeError, match=r"\(3,\) to a tensor of \(2,\)"):
        a.assign(Tensor([1.0, 2.0, 3.0]))
    with pytest.raises(DtypeError, match=r"int32 to dtypes\.float32"):
        a.assign(Tensor([1, 2]))
    with pytest.raises(DeviceError, match="on CLANG"):
        a.to("LLVM").realize().assign(Tensor([1.0, 2.0], device="CLANG"))
    w = Tensor([1.0, 2.0], requires_grad=True)
    with pytest.raises(GradientError, match="lose the gradient"):
        a.assign(w)
    with pytest.raises(GradientError, match="falsify"):
        (w * 2).assign(a)
    with pytest.raises(GradientError, match="part of a tensor"):
        w[0] = 1
    with pytest.raises(NotSupported, match="expanded or padded view"):
        b = Tensor([1.0])
        b.expand(3).assign(Tensor([1.0, 2.0, 3.0]))


def test_nothing_is_written_through_an_empty_view() -> None:
    a = Tensor(np.arange(2, dtype=np.int32).reshape(2, 1)).realize()
    empty = a[:, 0:0]
    empty.assign(empty * 3)
    a[2:].assign(a[2:] + 1)
    assert a.tolist() == [[0], [1]]
