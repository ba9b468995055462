"""The three programs of a tensor library's front page."""

from __future__ import annotations

import re

import numpy as np
import pytest

from compiler import compile as compiling
from tinyhw import Device, GlobalCounters, Tensor, nn
from tinyhw.context import Context


def test_matmul_spelled_with_reshapes_is_one_kernel_that_stores_no_product(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    # A kernel that this process already has would not be compiled, and so not shown.
    monkeypatch.setattr(compiling, "_compiled", {})
    monkeypatch.setattr(Device.runtime(Device.DEFAULT), "_programs", {})
    size = 1024
    numbers = np.random.default_rng(1)
    a_array, b_array = (numbers.standard_normal((size, size)).astype(np.float32) for _ in "ab")
    a, b = Tensor(a_array).realize(), Tensor(b_array).realize()
    Device[Device.DEFAULT].synchronize()
    before = GlobalCounters.mem_used
    GlobalCounters.reset()
    with Context(DEBUG=4):
        c = (a.reshape(size, 1, size) * b.T.reshape(1, size, size)).sum(axis=2).realize()
    printed = capsys.readouterr().out
    assert GlobalCounters.kernel_count == 1
    assert GlobalCounters.global_ops == 2 * size**3
    assert GlobalCounters.mem_used - before < 2 * 4 * size**2  # the result, not its products
    np.testing.assert_allclose(c.numpy(), a_array @ b_array, atol=2e-3)

    plan = re.search(r"kernel r_1024_1024_1024\n((?: .*\n)+)", printed)
    assert plan is not None and "unrolled" in plan[1]
    on_cpu = Device[Device.DEFAULT].target.is_cpu
    copied = "stage argument" if on_cpu else "through local memory"
    assert copied in plan[1], "tiles of the factors are copied near"
    assert "r_1024_1024_1024" in printed.split(copied)[-1], "the source follows the plan"

    GlobalCounters.reset()
    with Context(DEBUG=3):
        d = (a @ b).realize()
    other = re.search(r"kernel r_1024_1024_1024\n((?: .*\n)+)", capsys.readouterr().out)
    # As fast as a @ b: it is the very same kernel, or one with the same plan.
    assert GlobalCounters.kernel_count == 1
    assert other is None or other[1] == plan[1]
    np.testing.assert_array_equal(c.numpy(), d.numpy())


class LinearNet:
    def __init__(self) -> None:
        self.l1 = Tensor.kaiming_uniform(784, 128)
        self.l2 = Tensor.kaiming_uniform(128, 10)

    def __call__(self, x: Tensor) -> Tensor:
        return x.flatten(1).dot(self.l1).relu().dot(self.l2)


def test_linear_net_learns_with_adam_as_in_pytorch() -> None:
    torch = pytest.importorskip("torch")
    Tensor.manual_seed(7)
    model = LinearNet()
    optimizer = nn.optim.Adam([model.l1, model.l2], lr=0.001)
    first, second = (
        torch.tensor(w.numpy().copy(), requires_grad=True) for w in (model.l1, model.l2)
    )
    reference = torch.optim.Adam([first, second], lr=0.001)
    pixels = np.random.default_rng(3).random((4, 1, 28, 28), np.float32)
    labels = [2, 4, 3, 7]
    losses = []
    with Tensor.train():
        for _ in range(10):
            optimizer.zero_grad()
            loss = model(Tensor(pixels)).sparse_categorical_crossentropy(Tensor(labels)).backward()
            optimizer.step()
            losses.append(loss.item())
            reference.zero_grad()
            hidden = torch.relu(torch.tensor(pixels).flatten(1) @ first)
            expected = torch.nn.functional.cross_entropy(hidden @ second, torch.tensor(labels))
            expected.backward()
            reference.step()
            assert losses[-1] == pytest.approx(expected.item(), rel=1e-4)
    assert losses[-1] < losses[0] / 2
    np.testing.assert_allclose(model.l1.numpy(), first.detach().numpy(), atol=1e-5)


def test_gradients_of_a_product_with_eye_are_pytorchs() -> None:
    torch = pytest.importorskip("torch")
    x = Tensor.eye(3, requires_grad=True)
    y = Tensor([[2.0, 0, -2.0]], requires_grad=True)
    y.matmul(x).sum().backward()
    tx = torch.eye(3, requires_grad=True)
    ty = torch.tensor([[2.0, 0, -2.0]], requires_grad=True)
    ty.matmul(tx).sum().backward()
    assert x.grad is not None and y.grad is not None
    np.testing.assert_array_equal(x.grad.numpy(), tx.grad.numpy())
    np.testing.assert_array_equal(y.grad.numpy(), ty.grad.numpy())
