"""Layers that PyTorch has and tinygrad lacks, against PyTorch's, forwards and backwards."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from test.tinyhw.compare import equal, floats, integers, torch
from tinyhw import Tensor, nn
from tinyhw.errors import DtypeError, NotSupported, ShapeError
from tinyhw.nn.state import get_parameters, get_state_dict, load_state_dict

# Name, arguments, shapes of inputs.
FULL = os.environ.get("TINYHW_FULL") == "1"
PLAIN: list[tuple[str, tuple[Any, ...], dict[str, Any], tuple[tuple[int, ...], ...]]] = [
    ("ConstantPad2d", ((1, 2, 0, 1), 3.5), {}, ((2, 3, 4),)),
    ("ZeroPad1d", (2,), {}, ((2, 3, 4),)),
    ("ReflectionPad2d", ((1, 2, 0, 1),), {}, ((2, 3, 4, 4),)),
    ("ReplicationPad3d", (1,), {}, ((1, 2, 3, 2, 3),)),
    ("CircularPad1d", ((1, 2),), {}, ((2, 3, 4),)),
    ("Conv2d", (2, 3, 3), {"padding": (2, 1), "padding_mode": "reflect"}, ((1, 2, 4, 5),)),
    ("Conv1d", (2, 3, 3), {"padding": "same", "padding_mode": "circular"}, ((1, 2, 5),)),
    ("LayerNorm", (4,), {"bias": False}, ((2, 3, 4),)),
    ("Unfold", (2,), {"stride": 2}, ((2, 3, 4, 6),)),
    ("Fold", (4, 2), {"stride": 2}, ((2, 12, 4),)),
    ("LPPool2d", (2, 2), {}, ((2, 3, 4, 6),)),
    ("UpsamplingNearest2d", (), {"scale_factor": 2}, ((2, 3, 3, 4),)),
    ("UpsamplingBilinear2d", ((5, 7),), {}, ((2, 3, 3, 4),)),
    ("ChannelShuffle", (3,), {}, ((2, 6, 4),)),
    ("Softmax2d", (), {}, ((2, 3, 4, 5),)),
    ("Dropout2d", (0.3,), {}, ((2, 3, 4, 5),)),
    ("LocalResponseNorm", (3,), {"alpha": 0.1}, ((2, 6, 4),)),
    ("PReLU", (3,), {}, ((2, 3, 4),)),
    ("CosineSimilarity", (), {}, ((4, 5), (4, 5))),
    ("PairwiseDistance", (), {"p": 1.5, "keepdim": True}, ((4, 5), (4, 5))),
    ("Bilinear", (3, 4, 5), {}, ((2, 3), (2, 4))),
    ("InstanceNorm2d", (3,), {}, ((2, 3, 4, 5),)),
    ("InstanceNorm1d", (3,), {"affine": True}, ((2, 3, 4),)),
    ("RNNCell", (3, 4), {"nonlinearity": "relu"}, ((2, 3), (2, 4))),
    ("GRUCell", (3, 4), {}, ((2, 3), (2, 4))),
    ("RNN", (3, 4, 2), {}, ((3, 2, 3),)),
    ("LSTM", (3, 4), {"batch_first": True}, ((2, 2, 3),)),
    ("GRU", (3, 4), {"bidirectional": True}, ((2, 2, 3), (2, 2, 4))),
    ("MultiheadAttention", (6, 3), {}, ((4, 2, 6), (5, 2, 6), (5, 2, 6))),
]  # fmt: skip
if FULL:  # these take long to compile
    PLAIN += [
        ("LSTM", (3, 4), {"bias": False}, ((4, 3),)),
        ("LSTM", (3, 4, 2), {"bidirectional": True, "batch_first": True}, ((2, 4, 3),)),
        ("RNN", (3, 4, 2), {"bidirectional": True}, ((5, 2, 3),)),
        ("MultiheadAttention", (6, 2), {"kdim": 3, "vdim": 5, "batch_first": True, "bias": False},
         ((2, 4, 6), (2, 5, 3), (2, 5, 5))),
        ("TransformerEncoderLayer", (6, 2, 7), {"activation": "gelu"}, ((4, 2, 6),)),
        ("TransformerDecoderLayer", (6, 3, 7), {"batch_first": True, "norm_first": True},
         ((2, 3, 6), (2, 4, 6))),
    ]  # fmt: skip


def flat(found: Any) -> list[Any]:
    """All tensors of nested results."""
    if isinstance(found, tuple | list):
        return [t for part in found for t in flat(part)]
    return [found]


def both(name: str, args: tuple[Any, ...], options: dict[str, Any]) -> tuple[Any, Any]:
    """Our layer and PyTorch's, with its parameters."""
    theirs = getattr(torch.nn, name)(*args, **options).eval()
    with torch.no_grad():
        for i, p in enumerate(theirs.parameters()):
            p.copy_(torch.tensor(floats(*p.shape, seed=i, low=-0.7, high=0.7)))
    ours = getattr(nn, name)(*args, **options)
    state = {n: Tensor(t.detach().numpy()) for n, t in theirs.state_dict().items()}
    load_state_dict(ours, state)
    return ours, theirs


@pytest.mark.parametrize(
    ("name", "args", "options", "shapes"), PLAIN, ids=[f"{c[0]}-{i}" for i, c in enumerate(PLAIN)]
)
def test_a_layer(
    name: str, args: tuple[Any, ...], options: dict[str, Any], shapes: tuple[tuple[int, ...], ...]
) -> None:
    ours, theirs = both(name, args, options)
    for p in get_parameters(ours):
        p.requires_grad_()
    inputs = [floats(*shape, seed=10 + i) for i, shape in enumerate(shapes)]
    a = [Tensor(x, requires_grad=True) for x in inputs]
    b = [torch.tensor(x, requires_grad=True) for x in inputs]
    found, expected = flat(ours(*a)), flat(theirs(*b))
    weights = [floats(*t.shape, seed=20 + i) for i, t in enumerate(expected)]
    total = sum((f * Tensor(w)).sum() for f, w in zip(found, weights, strict=True))
    total.backward()  # type: ignore[union-attr]
    sum((t * torch.tensor(w)).sum() for t, w in zip(expected, weights, strict=True)).backward()
    for ours_, theirs_ in zip(found, expected, strict=True):
        equal(ours_, theirs_, 1e-4, 1e-5)
    for x, y in zip(a, b, strict=True):
        equal(x.grad, y.grad, 1e-3, 2e-5)  # type: ignore[arg-type]
    named = dict(theirs.named_parameters())
    for name_, p in get_state_dict(ours).items():
        equal(p.grad, named[name_].grad, 1e-3, 5e-5)  # type: ignore[arg-type]


X, Y = floats(4, 3, low=0.1, high=0.9), floats(4, 3, low=0.1, high=0.9, seed=1)
SIGNS = np.array([1, -1, 1, -1], np.float32)
CLASSES = integers(4, low=0, high=3, dtype="int64")
WEIGHT = np.array([0.5, 1, 2], np.float32)
LOSSES: list[tuple[str, dict[str, Any], tuple[Any, ...]]] = [
    ("MSELoss", {"reduction": "sum"}, (X, Y)),
    ("L1Loss", {}, (X, Y)),
    ("SmoothL1Loss", {"beta": 0.2}, (X, Y)),
    ("HuberLoss", {"delta": 0.2}, (X, Y)),
    ("CrossEntropyLoss", {"weight": WEIGHT, "label_smoothing": 0.1}, (X, CLASSES)),
    ("NLLLoss", {"weight": WEIGHT}, (X, CLASSES)),
    ("BCELoss", {}, (X, Y)),
    ("BCEWithLogitsLoss", {"pos_weight": WEIGHT, "reduction": "none"}, (X, Y)),
    ("KLDivLoss", {"log_target": True, "reduction": "batchmean"}, (X, Y)),
    ("PoissonNLLLoss", {"full": True}, (X, Y * 3)),
    ("GaussianNLLLoss", {}, (X, Y, X + 0.1)),
    ("SoftMarginLoss", {}, (X[:, 0], SIGNS)),
    ("HingeEmbeddingLoss", {"margin": 0.5}, (X[:, 0], SIGNS)),
    ("MarginRankingLoss", {"margin": 0.1}, (X[:, 0], Y[:, 0], SIGNS)),
    ("CosineEmbeddingLoss", {}, (X, Y, SIGNS)),
    ("TripletMarginLoss", {"swap": True}, (X, Y, X[::-1].copy())),
]


@pytest.mark.parametrize(("name", "options", "inputs"), LOSSES, ids=[c[0] for c in LOSSES])
def test_a_loss(name: str, options: dict[str, Any], inputs: tuple[Any, ...]) -> None:
    def given(make: Callable[[Any], Any]) -> dict[str, Any]:
        return {k: make(v) if isinstance(v, np.ndarray) else v for k, v in options.items()}

    ours = getattr(nn, name)(**given(Tensor))
    theirs = getattr(torch.nn, name)(**given(torch.tensor))
    equal(ours(*map(Tensor, inputs)), theirs(*map(torch.tensor, inputs)), 1e-4, 1e-5)
    assert get_parameters(ours) == []


def test_positional_options_of_a_loss_stand_in_pytorchs_order() -> None:
    equal(nn.CrossEntropyLoss(Tensor(WEIGHT), None, 1)(Tensor(X), Tensor(CLASSES)),
          torch.nn.CrossEntropyLoss(torch.tensor(WEIGHT), None, 1)(
              torch.tensor(X), torch.tensor(CLASSES)))  # fmt: skip
    with pytest.raises(DtypeError, match="not size_average"):
        nn.MSELoss(size_average=True)
    with pytest.raises(DtypeError, match="MSELoss takes reduction, not beta"):
        nn.MSELoss(beta=2)


@pytest.mark.parametrize("kind", ["bool", "float"])
@pytest.mark.parametrize("averaged", [True, False])
def test_masks_of_attention(kind: str, averaged: bool) -> None:
    ours, theirs = both("MultiheadAttention", (6, 2), {"batch_first": True})
    x = floats(2, 4, 6)
    hidden = np.triu(np.ones((4, 4), bool), 1)
    padding = np.array([[False] * 4, [False, False, True, True]])
    if kind == "float":
        hidden, padding = (
            np.where(mask, np.float32(-np.inf), np.float32(0)) for mask in (hidden, padding)
        )
    found = ours(*(Tensor(x),) * 3, key_padding_mask=Tensor(padding), attn_mask=Tensor(hidden),
                 average_attn_weights=averaged)
    expected = theirs(*(torch.tensor(x),) * 3, key_padding_mask=torch.tensor(padding),
                      attn_mask=torch.tensor(hidden), average_attn_weights=averaged)
    for a, b in zip(found, expected, strict=True):
        equal(a, b, 1e-4, 1e-5)
    assert ours(*(Tensor(x),) * 3, need_weights=False)[1] is None


def test_a_stack_of_encoders_and_decoders() -> None:
    layer = torch.nn.TransformerEncoderLayer(6, 2, 7, batch_first=True)
    theirs = torch.nn.TransformerEncoder(layer, 2, torch.nn.LayerNorm(6)).eval()
    ours = nn.TransformerEncoder(
        nn.TransformerEncoderLayer(6, 2, 7, batch_first=True), 2, nn.LayerNorm(6)
    )
    assert get_state_dict(ours).keys() == theirs.state_dict().keys()
    load_state_dict(ours, {n: Tensor(t.numpy()) for n, t in theirs.state_dict().items()})
    x, mask = floats(2, 4, 6), np.triu(np.ones((4, 4), bool), 1)
    with torch.no_grad():
        expected = theirs(torch.tensor(x), torch.tensor(mask))
    equal(ours(Tensor(x), Tensor(mask)), expected, 1e-4, 1e-5)
    assert len({id(t) for t in get_parameters(ours)}) == len(theirs.state_dict())


def test_lists_of_layers_name_their_parameters_as_pytorch_does() -> None:
    class Net:
        def __init__(self) -> None:
            self.layers = nn.ModuleList([nn.Linear(2, 3), nn.PReLU()])
            self.heads = nn.ModuleDict({"a": nn.Linear(3, 1)})
            self.scale = nn.Parameter(Tensor([1.0]))

    assert list(get_state_dict(Net())) == [
        "layers.0.weight", "layers.0.bias", "layers.1.weight", "heads.a.weight", "heads.a.bias",
        "scale",
    ]  # fmt: skip
    assert Net().scale.requires_grad


def test_an_embedding_with_a_row_for_padding() -> None:
    ours = nn.Embedding(num_embeddings=5, embedding_dim=3, padding_idx=-4)
    assert ours.weight.numpy()[1].tolist() == [0, 0, 0] and ours.weight.numpy()[2].any()
    theirs = torch.nn.Embedding(5, 3, padding_idx=1)
    ours.weight.assign(Tensor(theirs.weight.detach().numpy() + np.float32(1))).realize()
    theirs.weight.data += 1
    ours.weight.requires_grad_()
    index, scale = np.array([0, 1, 4, 1]), floats(4, 3)
    found, expected = ours(Tensor(index)), theirs(torch.tensor(index))
    equal(found, expected)
    (found * Tensor(scale)).sum().backward()
    (expected * torch.tensor(scale)).sum().backward()
    equal(ours.weight.grad, theirs.weight.grad)  # type: ignore[arg-type]
    with pytest.raises(ShapeError, match="no row 5"):
        nn.Embedding(5, 3, 5)


def test_every_layer_is_a_module() -> None:
    model = nn.Sequential(nn.Linear(2, 3), nn.Sequential(nn.BatchNorm2d(num_features=3), nn.ReLU()))
    assert len(list(model.parameters())) == 4 and len(list(model.buffers())) == 3
    assert [name for name, _ in model.named_children()] == ["0", "1"]
    assert [type(m).__name__ for m in model.modules()] == [
        "Sequential", "Linear", "Sequential", "BatchNorm", "ReLU"
    ]  # fmt: skip
    assert list(model.state_dict()) == list(get_state_dict(model))
    assert model.half()[0].weight.dtype.name == "float16"  # type: ignore[attr-defined]
    with pytest.raises(DtypeError, match="name the momentum"):
        nn.BatchNorm2d(3, 1e-5, 0.1)  # type: ignore[arg-type]
    with pytest.raises(ShapeError, match="'mirror'"):
        nn.Conv2d(1, 1, 3, padding_mode="mirror")


def test_channels_are_dropped_whole_in_training() -> None:
    x = Tensor.ones(8, 16, 3, 3)
    with Tensor.train():
        found = nn.Dropout2d(0.5)(x).numpy()
    assert set(np.unique(found)) == {0, 2}
    assert (found == found[:, :, :1, :1]).all()


def test_what_recurrent_and_attention_layers_lack_is_refused() -> None:
    with pytest.raises(NotSupported, match="proj_size=2"):
        nn.LSTM(3, 4, proj_size=2)
    with pytest.raises(NotSupported, match="add_bias_kv"):
        nn.MultiheadAttention(4, 2, add_bias_kv=True)
    with pytest.raises(NotSupported, match="track_running_stats"):
        nn.InstanceNorm2d(3, track_running_stats=True)
    with pytest.raises(ShapeError, match="4 features do not divide into 3 heads"):
        nn.MultiheadAttention(4, 3)
    with pytest.raises(ShapeError, match="3 features"):
        nn.GRU(3, 4)(Tensor.zeros(2, 2, 5))
    with pytest.raises(ShapeError, match=r"2 states of the shape \(1, 2, 4\)"):
        nn.LSTM(3, 4)(Tensor.zeros(5, 2, 3), (Tensor.zeros(1, 2, 4), Tensor.zeros(1, 1, 4)))
    with pytest.raises(DtypeError, match="'sin'"):
        nn.RNN(3, 4, nonlinearity="sin")
    with pytest.raises(ShapeError, match="one amount or 4"):
        nn.ZeroPad2d((1, 2, 3))
