"""nn.functional and nn.Module: programs for PyTorch run with the import changed."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from test.tinyhw.compare import equal, floats, integers, torch
from tinyhw import Tensor, nn
from tinyhw.errors import GradientError, NotSupported, ShapeError

X = floats(2, 4, 6)
IMAGES = floats(2, 4, 5, 6)
W = floats(4, seed=1, low=0.5)
CALLS: list[tuple[str, Any]] = [
    *((name, lambda F, t, n=name: getattr(F, n)(t(X))) for name in (
        "relu", "relu6", "sigmoid", "tanh", "silu", "mish", "hardswish", "hardsigmoid", "softsign",
        "logsigmoid", "tanhshrink", "gelu", "elu", "celu", "selu", "leaky_relu", "softplus",
        "hardtanh", "softshrink", "hardshrink", "glu", "normalize")),
    ("leaky_relu", lambda F, t: F.leaky_relu(t(X), 0.3, inplace=True)),
    ("gelu", lambda F, t: F.gelu(t(X), approximate="tanh")),
    ("threshold", lambda F, t: F.threshold(input=t(X), threshold=0.1, value=2.0)),
    ("max_pool2d", lambda F, t: F.max_pool2d(t(IMAGES), 3, 2, 1, 1, True)),
    ("max_pool1d", lambda F, t: F.max_pool1d(t(X), 2, return_indices=False)),
    ("avg_pool2d", lambda F, t: F.avg_pool2d(t(IMAGES), (2, 3), 1, 1)),
    ("lp_pool2d", lambda F, t: F.lp_pool2d(t(np.abs(IMAGES)), 2.0, 2)),
    ("adaptive_avg_pool2d", lambda F, t: F.adaptive_avg_pool2d(t(IMAGES), (2, 3))),
    ("adaptive_max_pool1d", lambda F, t: F.adaptive_max_pool1d(t(X), 3)),
    ("unfold", lambda F, t: F.unfold(t(IMAGES), 2, 1, 1, 2)),
    ("fold", lambda F, t: F.fold(t(X), (3, 4), (2, 2))),
    ("local_response_norm", lambda F, t: F.local_response_norm(t(X), 3, 0.1)),
    ("cosine_similarity", lambda F, t: F.cosine_similarity(t(X), t(X) * 2 + 1, dim=2)),
    ("pairwise_distance", lambda F, t: F.pairwise_distance(t(X), t(X) * 2, 1.0)),
    ("mse_loss", lambda F, t: F.mse_loss(t(X), t(X) * 2, reduction="sum")),
    ("mse_loss", lambda F, t: F.mse_loss(input=t(X), target=t(X) * 2)),
    ("smooth_l1_loss", lambda F, t: F.smooth_l1_loss(t(X), t(X) * 2, beta=0.3)),
    ("huber_loss", lambda F, t: F.huber_loss(t(X), t(X) * 2, "sum", 0.3)),
    ("cross_entropy", lambda F, t: F.cross_entropy(
        t(X[:, :, 0]), t(integers(2, low=0, high=4, dtype="int64")), t(W), reduction="sum")),
    ("nll_loss", lambda F, t: F.nll_loss(
        t(X[:, :, 0]), t(integers(2, low=0, high=4, dtype="int64")), ignore_index=1)),
    ("binary_cross_entropy_with_logits", lambda F, t: F.binary_cross_entropy_with_logits(
        t(X), t(np.abs(X) / 2), None, None, None, "none")),
    ("kl_div", lambda F, t: F.kl_div(t(X), t(np.abs(X)), reduction="batchmean")),
    ("gaussian_nll_loss", lambda F, t: F.gaussian_nll_loss(t(X), t(X) * 2, t(np.abs(X) + 1))),
    ("margin_ranking_loss", lambda F, t: F.margin_ranking_loss(
        t(X), t(X) * 2, t(np.sign(X)), 0.2)),
    ("triplet_margin_loss", lambda F, t: F.triplet_margin_loss(t(X), t(X) * 2, t(X) + 1, 2.0)),
    ("softmax", lambda F, t: F.softmax(t(X), dim=1)),
    ("log_softmax", lambda F, t: F.log_softmax(t(X), 2)),
    ("softmin", lambda F, t: F.softmin(t(X), dim=-1)),
    ("prelu", lambda F, t: F.prelu(t(X), t(W))),
    ("linear", lambda F, t: F.linear(t(X), t(floats(3, 6)), t(W[:3]))),
    ("linear to one", lambda F, t: F.linear(t(X), t(floats(1, 6)))),
    ("bilinear", lambda F, t: F.bilinear(t(X), t(X) + 1, t(floats(3, 6, 6)), t(W[:3]))),
    ("conv1d", lambda F, t: F.conv1d(t(X), t(floats(6, 2, 3)), None, 2, 1, 1, 2)),
    ("conv2d", lambda F, t: F.conv2d(t(IMAGES), t(floats(3, 4, 2, 3)), t(W[:3]), padding="same")),
    ("conv2d without a batch", lambda F, t: F.conv2d(t(IMAGES[0]), t(floats(3, 4, 2, 3)))),
    ("conv_transpose2d", lambda F, t: F.conv_transpose2d(
        t(IMAGES), t(floats(4, 3, 3, 2)), t(W[:3]), (2, 1), 1, (1, 0), 1, 1)),
    ("scaled_dot_product_attention", lambda F, t: F.scaled_dot_product_attention(
        t(X), t(X), t(X), is_causal=True)),
    ("embedding", lambda F, t: F.embedding(t(integers(2, 3, low=0, high=4, dtype="int64")),
                                           t(X[0]))),
    ("batch_norm", lambda F, t: F.batch_norm(t(X), t(W), t(W * 2), t(W), t(W), eps=0.1)),
    ("batch_norm of a batch", lambda F, t: F.batch_norm(t(X), None, None, training=True)),
    ("layer_norm", lambda F, t: F.layer_norm(t(X), (4, 6), t(X[0]), None, 0.1)),
    ("rms_norm", lambda F, t: F.rms_norm(t(X), [6], eps=0.1)),
    ("group_norm", lambda F, t: F.group_norm(t(X), 2, t(W), t(W))),
    ("dropout", lambda F, t: F.dropout(t(X), 0.5, training=False)),
    ("pad", lambda F, t: F.pad(t(X), (1, 2, 0, 1), value=3.0)),
    ("pad", lambda F, t: F.pad(t(X), (1, 2), "replicate")),
    ("interpolate", lambda F, t: F.interpolate(t(IMAGES), scale_factor=2)),
    ("interpolate", lambda F, t: F.interpolate(t(IMAGES), (7, 3), mode="bilinear",
                                               align_corners=True)),
    ("grid_sample", lambda F, t: F.grid_sample(t(IMAGES), t(floats(2, 2, 3, 2, low=-1, high=1)),
                                               align_corners=True)),
    ("affine_grid", lambda F, t: F.affine_grid(t(floats(2, 2, 3)), (2, 1, 3, 4),
                                               align_corners=False)),
]  # fmt: skip


@pytest.mark.parametrize(
    ("name", "call"), CALLS, ids=[f"{name}-{i}" for i, (name, _) in enumerate(CALLS)]
)
def test_a_function(name: str, call: Any) -> None:
    equal(call(nn.functional, Tensor), call(torch.nn.functional, torch.tensor), 1e-4, 1e-5)


def test_running_statistics_follow_the_batch() -> None:
    kept = [Tensor(W), Tensor(W)], [torch.tensor(W), torch.tensor(W)]
    nn.functional.batch_norm(Tensor(X), *kept[0], training=True, momentum=0.3).realize()
    torch.nn.functional.batch_norm(torch.tensor(X), *kept[1], training=True, momentum=0.3)
    for ours, theirs in zip(*kept, strict=True):
        equal(ours, theirs, 1e-4, 1e-5)


def test_dropout_follows_its_own_argument() -> None:
    assert set(np.unique(nn.functional.dropout(Tensor.ones(500)).numpy())) == {0, 2}
    with Tensor.train():
        assert nn.functional.dropout(Tensor.ones(50), training=False).min().item() == 1
    x = nn.functional.dropout2d(Tensor.ones(8, 9, 2, 2)).numpy()
    assert (x == x[:, :, :1, :1]).all() and set(np.unique(x)) == {0, 2}


def test_shapes_that_do_not_fit_are_named() -> None:
    with pytest.raises(ShapeError, match=r"are not \(5,\)"):
        nn.functional.layer_norm(Tensor(X), 5)
    with pytest.raises(ShapeError, match="convolution of 2 axes"):
        nn.functional.conv2d(Tensor(X[0]), Tensor(floats(3, 4, 2, 3)))
    with pytest.raises(ShapeError, match="3 groups"):
        nn.functional.group_norm(Tensor(X), 3)


def net(library: Any, functional: Any) -> Any:
    """One program for both libraries."""

    class Net(library.Module):  # type: ignore[misc]
        def __init__(self) -> None:
            super().__init__()
            self.conv = library.Conv2d(1, 3, 3)
            self.norm = library.BatchNorm2d(3)
            self.fc = library.Linear(12, 2)
            self.more = library.ModuleList([library.Linear(2, 2), library.ReLU()])

        def forward(self, x: Any) -> Any:
            x = functional.max_pool2d(functional.relu(self.norm(self.conv(x))), 2)
            x = self.fc(x.flatten(1))
            for layer in self.more:
                x = layer(x)
            return x

    return Net()


def test_a_module_trains_as_pytorchs_does() -> None:
    ours, theirs = net(nn, nn.functional), net(torch.nn, torch.nn.functional)
    assert list(ours.state_dict()) and set(ours.state_dict()) == set(theirs.state_dict())
    ours.load_state_dict({n: Tensor(t.numpy()) for n, t in theirs.state_dict().items()})
    x, y = floats(6, 1, 6, 6), integers(6, low=0, high=2, dtype="int64")
    pairs = [(ours, nn, Tensor), (theirs, torch.nn, torch.tensor)]
    try:
        for model, library, tensor in pairs:
            kind = nn.optim if library is nn else torch.optim
            optimiser = kind.SGD(model.parameters(), lr=0.1, momentum=0.9)
            model.train()
            for _ in range(3):
                optimiser.zero_grad()
                library.functional.cross_entropy(model(tensor(x)), tensor(y)).backward()
                optimiser.step()
    finally:
        ours.eval()
    assert not Tensor.training and not ours.training
    equal(ours(Tensor(x)), theirs.eval()(torch.tensor(x)), 1e-3, 1e-4)
    with pytest.raises(GradientError, match=r"Tensor\.train\(\)"):
        nn.optim.SGD(ours.parameters()).step()


def test_the_parts_of_a_module() -> None:
    model = net(nn, nn.functional)
    assert [name for name, _ in model.named_children()] == ["conv", "norm", "fc", "more"]
    kinds = [type(part).__name__ for part in model.modules()]
    assert kinds == ["Net", "Conv2d", "BatchNorm", "Linear", "ModuleList", "Linear", "ReLU"]
    assert len(list(model.parameters())) == 8 and len(list(model.buffers())) == 3
    model.register_buffer("table", Tensor([1.0]))
    assert "table" in model.state_dict() and len(list(model.parameters())) == 8
    seen: list[Any] = []
    assert model.apply(seen.append) is model and seen[-1] is model and len(seen) == 7
    model.half()
    assert {t.dtype.name for t in model.parameters()} == {"float16"}
    assert model.norm.num_batches_tracked.dtype.name == "int64"
    assert model.float().cpu()(Tensor.zeros(2, 1, 6, 6)).shape == (2, 2)
    model.requires_grad_(False)
    assert list(model.parameters()) == []
    with pytest.raises(NotSupported, match="Module has no forward"):
        nn.Module()(1)
