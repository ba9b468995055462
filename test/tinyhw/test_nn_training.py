"""nn.init, nn.utils and learning-rate schedules against PyTorch's."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from test.tinyhw.compare import equal, floats, torch
from tinyhw import Tensor, nn
from tinyhw.errors import DtypeError, GradientError, SettingError, ShapeError


# ---- how parameters start ----
@pytest.mark.parametrize(
    ("name", "shape", "options"),
    [
        ("constant_", (3, 4), {"val": 2.5}), ("zeros_", (3, 4), {}), ("ones_", (4,), {}),
        ("eye_", (3, 5), {}), ("dirac_", (4, 2, 3), {}), ("dirac_", (4, 2, 2, 3), {"groups": 2}),
    ],
)  # fmt: skip
def test_values_that_are_fixed(name: str, shape: tuple[int, ...], options: dict[str, Any]) -> None:
    ours, theirs = Tensor(floats(*shape)), torch.tensor(floats(*shape))
    assert getattr(nn.init, name)(ours, **options) is ours
    equal(ours, getattr(torch.nn.init, name)(theirs, **options))


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("uniform_", {"a": -1, "b": 3}), ("normal_", {"mean": 1, "std": 2}),
        ("trunc_normal_", {"mean": 0.5, "std": 2.0, "a": -1, "b": 2}),
        ("xavier_uniform_", {"gain": 2}), ("xavier_normal_", {}),
        ("kaiming_uniform_", {"a": 0.3}),
        ("kaiming_normal_", {"mode": "fan_out", "nonlinearity": "relu"}),
    ],
)  # fmt: skip
def test_values_that_are_drawn(name: str, options: dict[str, Any]) -> None:
    """The same mean, deviation and limits as PyTorch's, as far as 20000 numbers tell."""
    Tensor.manual_seed(3)
    torch.manual_seed(3)
    ours, theirs = Tensor.zeros(50, 40, 10), torch.zeros(50, 40, 10)
    getattr(nn.init, name)(ours, **options)
    getattr(torch.nn.init, name)(theirs, **options)
    a, b = ours.numpy(), theirs.numpy()
    assert abs(a.mean() - b.mean()) < 0.04 * b.std() and abs(a.std() / b.std() - 1) < 0.04
    if "uniform" in name:
        assert abs(a.max() / b.max() - 1) < 0.01
    if name == "trunc_normal_":
        assert a.min() >= -1 and a.max() <= 2


def test_an_orthogonal_start() -> None:
    for shape in ((3, 5), (5, 3), (4, 2, 2)):
        w = nn.init.orthogonal_(Tensor.zeros(*shape), 2).numpy().reshape(shape[0], -1)
        product = w @ w.T if w.shape[0] <= w.shape[1] else w.T @ w
        np.testing.assert_allclose(product, 4 * np.eye(len(product)), atol=1e-4)


def test_gains_and_wrong_starts() -> None:
    for name in ("linear", "tanh", "relu", "selu"):
        assert nn.init.calculate_gain(name) == pytest.approx(torch.nn.init.calculate_gain(name))
    assert nn.init.calculate_gain("leaky_relu", 0.2) == pytest.approx(
        torch.nn.init.calculate_gain("leaky_relu", 0.2)
    )
    with pytest.raises(DtypeError, match="no gain for 'cubic'"):
        nn.init.calculate_gain("cubic")
    with pytest.raises(ShapeError, match="two axes"):
        nn.init.xavier_normal_(Tensor.zeros(3))
    with pytest.raises(ShapeError, match="a < b"):
        nn.init.trunc_normal_(Tensor.zeros(3), a=2, b=1)
    with pytest.raises(DtypeError, match="'fan_both'"):
        nn.init.kaiming_normal_(Tensor.zeros(3, 3), mode="fan_both")


# ---- gradients and vectors ----
def with_gradients() -> tuple[list[Tensor], list[Any]]:
    ours = [Tensor(floats(3, 4)), Tensor(floats(5)), Tensor(floats(2))]
    theirs = [torch.tensor(t.numpy()) for t in ours]
    for i, (a, b) in enumerate(zip(ours[:2], theirs[:2], strict=True)):
        a.grad, b.grad = Tensor(floats(*a.shape, seed=i)), torch.tensor(floats(*b.shape, seed=i))
    return ours, theirs


@pytest.mark.parametrize(("most", "kind"), [(0.5, 2.0), (100.0, 2.0), (1.0, math.inf), (2.0, 1.0)])
def test_gradients_are_clipped_together(most: float, kind: float) -> None:
    ours, theirs = with_gradients()
    equal(nn.utils.clip_grad_norm_(ours, most, kind),
          torch.nn.utils.clip_grad_norm_(theirs, most, kind))  # fmt: skip
    for a, b in zip(ours[:2], theirs[:2], strict=True):
        equal(a.grad, b.grad)  # type: ignore[arg-type]
    assert ours[2].grad is None


def test_gradients_are_clipped_one_by_one() -> None:
    ours, theirs = with_gradients()
    nn.utils.clip_grad_value_(ours, 0.3)
    torch.nn.utils.clip_grad_value_(theirs, 0.3)
    for a, b in zip(ours[:2], theirs[:2], strict=True):
        equal(a.grad, b.grad)  # type: ignore[arg-type]
    ours[0].grad = Tensor([math.nan])
    with pytest.raises(GradientError, match="norm is nan"):
        nn.utils.clip_grad_norm_(ours[0], 1.0, error_if_nonfinite=True)
    assert nn.utils.clip_grad_norm_([], 1.0).item() == 0


def test_parameters_are_a_vector() -> None:
    ours, _ = with_gradients()
    vector = nn.utils.parameters_to_vector(ours)
    assert vector.shape == (19,)
    nn.utils.vector_to_parameters(vector * 2, ours)
    equal(ours[1], floats(5) * 2)
    with pytest.raises(ShapeError, match="19 elements"):
        nn.utils.vector_to_parameters(vector[1:], ours)


# ---- schedules ----
SCHEDULES: list[tuple[str, Callable[[Any, Any], Any]]] = [
    ("StepLR", lambda s, o: s.StepLR(o, 3, 0.5)),
    ("MultiStepLR", lambda s, o: s.MultiStepLR(o, [2, 5], gamma=0.3)),
    ("ExponentialLR", lambda s, o: s.ExponentialLR(o, 0.8)),
    ("LambdaLR", lambda s, o: s.LambdaLR(o, lambda step: 1 / (1 + step))),
    ("ConstantLR", lambda s, o: s.ConstantLR(o, 0.2, 3)),
    ("LinearLR", lambda s, o: s.LinearLR(o, 0.1, 0.9, 6)),
    ("PolynomialLR", lambda s, o: s.PolynomialLR(o, 6, 2.0)),
    ("CosineAnnealingLR", lambda s, o: s.CosineAnnealingLR(o, 5, 0.01)),
    ("CosineAnnealingWarmRestarts", lambda s, o: s.CosineAnnealingWarmRestarts(o, 2, 2, 0.01)),
    ("SequentialLR", lambda s, o: s.SequentialLR(
        o, [s.LinearLR(o, 0.1, total_iters=3), s.ExponentialLR(o, 0.5)], [3])),
]  # fmt: skip


@pytest.mark.parametrize(("name", "make"), SCHEDULES, ids=[c[0] for c in SCHEDULES])
def test_a_schedule(name: str, make: Callable[[Any, Any], Any]) -> None:
    ours = nn.optim.SGD([Tensor([1.0])], 0.4)
    theirs = torch.optim.SGD([torch.tensor([1.0], requires_grad=True)], 0.4)
    a, b = make(nn.optim.lr_scheduler, ours), make(torch.optim.lr_scheduler, theirs)
    for _ in range(9):
        theirs.step()
        assert float(ours.lr) == pytest.approx(theirs.param_groups[0]["lr"], rel=1e-5, abs=1e-8)
        assert a.get_last_lr() == pytest.approx(b.get_last_lr(), rel=1e-5, abs=1e-8)
        a.step()
        b.step()


@pytest.mark.parametrize("options", [
    {"patience": 1, "factor": 0.5}, {"mode": "max", "patience": 0, "threshold_mode": "abs"},
    {"patience": 1, "cooldown": 2, "min_lr": 0.03, "threshold": 0.1},
])  # fmt: skip
def test_a_rate_falls_on_a_plateau(options: dict[str, Any]) -> None:
    ours = nn.optim.SGD([Tensor([1.0])], 0.4)
    theirs = torch.optim.SGD([torch.tensor([1.0], requires_grad=True)], 0.4)
    a = nn.optim.lr_scheduler.ReduceLROnPlateau(ours, **options)
    b = torch.optim.lr_scheduler.ReduceLROnPlateau(theirs, **options)
    for metric in (5, 4, 4, 4.1, 4.2, 3, 3, 3, 3, 3, 2.9, 2.9, 2.9, 3.5):
        a.step(Tensor(float(metric)))  # type: ignore[arg-type]
        b.step(metric)
        assert a.get_last_lr() == pytest.approx([theirs.param_groups[0]["lr"]], rel=1e-5)


def test_the_rate_is_set_in_pytorchs_way() -> None:
    group = nn.optim.OptimizerGroup(nn.optim.SGD([Tensor([1.0])], 0.1),
                                    nn.optim.Adam([Tensor([2.0])], 0.2))  # fmt: skip
    assert [g["lr"] for g in group.param_groups] == pytest.approx([0.1, 0.2])
    for g in group.param_groups:
        g["lr"] = g["lr"] * 2
    assert float(group[1].lr) == pytest.approx(0.4)
    nn.optim.lr_scheduler.StepLR(group, 1, 0.5).step()
    assert float(group[0].lr) == pytest.approx(0.1)
    with pytest.raises(SettingError, match="betas"):
        group.param_groups[0]["betas"] = (0.9, 0.99)
    with pytest.raises(SettingError, match="beginning"):
        nn.optim.lr_scheduler.LRScheduler(group, 3)


def test_an_optimiser_goes_on_from_its_state() -> None:
    def stepped(optimiser: Any, parameter: Tensor, count: int) -> None:
        with Tensor.train():
            for seed in range(count):
                optimiser.zero_grad()
                (parameter * Tensor(floats(3, seed=seed))).square().sum().backward()
                optimiser.step()

    p = Tensor(floats(3))
    first = nn.optim.Adam([{"params": [p]}], 0.1)  # type: ignore[list-item]
    stepped(first, p, 3)
    state = {name: Tensor(t.numpy()) for name, t in first.state_dict().items()}
    assert set(state) == {"lr", "b1_t", "b2_t", "m.0", "v.0"}
    q = Tensor(p.numpy())
    second = nn.optim.Adam([q])
    second.load_state_dict(state)
    stepped(first, p, 2)
    stepped(second, q, 2)
    equal(q, p.numpy())
    second.zero_grad(set_to_none=False)
    assert q.grad is not None and q.grad.tolist() == [0, 0, 0]
    with pytest.raises(SettingError, match="options of its own: params, lr"):
        nn.optim.SGD([{"params": [p], "lr": 0.1}])  # type: ignore[list-item]


def test_shapes_in_place_and_numbers() -> None:
    x = Tensor(floats(1, 3, 4))
    assert x.squeeze_() is x and x.shape == (3, 4)
    assert x.t_().unsqueeze_(0).transpose_(0, 1).shape == (4, 1, 3)
    equal(x, floats(1, 3, 4)[0].T[:, None])
    assert float(Tensor([2.5])) == 2.5 and int(Tensor(7)) == 7
    with pytest.raises(GradientError, match="gradient stays"):
        Tensor(floats(2), requires_grad=True).unsqueeze_(0)
