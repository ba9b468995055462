"""Layers, optimisers and state dicts against PyTorch's."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from test.tinyhw.compare import equal, floats, torch
from tinyhw import Tensor, dtypes, nn
from tinyhw.errors import DtypeError, GradientError, SettingError, ShapeError, TinyhwError
from tinyhw.nn.state import (
    StateMismatch,
    get_parameters,
    get_state_dict,
    load_state_dict,
    safe_load,
    safe_load_metadata,
    safe_save,
)

LAYERS: list[tuple[str, Any, Any, tuple[int, ...]]] = [
    ("Linear", nn.Linear(4, 5), torch.nn.Linear(4, 5), (3, 4)),
    ("Linear no bias", nn.Linear(4, 5, bias=False), torch.nn.Linear(4, 5, bias=False), (4,)),
    ("Conv2d", nn.Conv2d(2, 4, 3, 2, 1), torch.nn.Conv2d(2, 4, 3, 2, 1), (2, 2, 6, 5)),
    ("Conv2d same", nn.Conv2d(2, 4, (3, 2), padding="same", groups=2),
     torch.nn.Conv2d(2, 4, (3, 2), padding="same", groups=2), (2, 2, 6, 5)),
    ("Conv1d", nn.Conv1d(2, 3, 3, padding=1), torch.nn.Conv1d(2, 3, 3, padding=1), (2, 2, 6)),
    ("ConvTranspose2d", nn.ConvTranspose2d(2, 4, 3, 2, 1, 1),
     torch.nn.ConvTranspose2d(2, 4, 3, 2, 1, 1), (2, 2, 3, 4)),
    ("ConvTranspose1d", nn.ConvTranspose1d(2, 3, 3, 2), torch.nn.ConvTranspose1d(2, 3, 3, 2),
     (2, 2, 4)),
    ("Conv3d", nn.Conv3d(2, 3, 2, padding=1), torch.nn.Conv3d(2, 3, 2, padding=1), (1, 2, 3, 3, 2)),
    ("ConvTranspose3d", nn.ConvTranspose3d(2, 3, 2, 2), torch.nn.ConvTranspose3d(2, 3, 2, 2),
     (1, 2, 2, 3, 2)),
    ("Sequential", nn.Sequential(nn.Linear(4, 5), nn.ReLU(inplace=True), nn.Linear(5, 2)),
     torch.nn.Sequential(torch.nn.Linear(4, 5), torch.nn.ReLU(), torch.nn.Linear(5, 2)), (3, 4)),
    ("LayerNorm", nn.LayerNorm(5), torch.nn.LayerNorm(5), (2, 3, 5)),
    ("LayerNorm two", nn.LayerNorm((3, 5)), torch.nn.LayerNorm((3, 5)), (2, 3, 5)),
    ("GroupNorm", nn.GroupNorm(2, 4), torch.nn.GroupNorm(2, 4), (2, 4, 3, 3)),
    ("InstanceNorm", nn.InstanceNorm(4), torch.nn.InstanceNorm2d(4, affine=True), (2, 4, 3, 3)),
    ("RMSNorm", nn.RMSNorm(5), torch.nn.RMSNorm(5, eps=1e-6), (2, 5)),
]  # fmt: skip


def load_from(theirs: Any, ours: Any) -> None:
    """Gives our layer the reference's parameters."""
    state = {name: Tensor(t.detach().numpy()) for name, t in theirs.state_dict().items()}
    load_state_dict(ours, state)


@pytest.mark.parametrize(("name", "ours", "theirs", "shape"), LAYERS, ids=[c[0] for c in LAYERS])
def test_a_layer(name: str, ours: Any, theirs: Any, shape: tuple[int, ...]) -> None:
    with torch.no_grad():  # so that no weight is exactly 1 or 0
        for p in theirs.parameters():
            p.copy_(torch.tensor(floats(*p.shape, seed=len(p.shape))))
    load_from(theirs, ours)
    for p in get_parameters(ours):
        p.requires_grad_()
    a, b = Tensor(floats(*shape), requires_grad=True), torch.tensor(floats(*shape))
    b.requires_grad_()
    found, expected = ours(a), theirs(b)
    found.square().sum().backward()
    expected.square().sum().backward()
    equal(found, expected, 1e-4, 1e-5)
    equal(a.grad, b.grad, 1e-3, 1e-4)
    reference = dict(theirs.named_parameters())
    for key, p in get_state_dict(ours).items():
        equal(p.grad, reference[key].grad, 1e-3, 1e-3)


FUNCTIONS: list[tuple[str, tuple[Any, ...], tuple[int, ...]]] = [
    *((name, (), (3, 4)) for name in (
        "Identity", "ReLU", "ReLU6", "Sigmoid", "Tanh", "SiLU", "Mish", "Hardswish", "Hardsigmoid",
        "Softsign", "LogSigmoid", "Tanhshrink", "GELU", "ELU", "CELU", "SELU", "LeakyReLU",
        "Softplus", "Hardtanh", "Softshrink", "Hardshrink", "GLU")),
    ("GELU", ("tanh",), (3, 4)), ("LeakyReLU", (0.3,), (3, 4)), ("Threshold", (0.1, 2.0), (3, 4)),
    ("Softmax", (1,), (3, 4)), ("LogSoftmax", (0,), (3, 4)), ("Softmin", (1,), (3, 4)),
    ("Flatten", (), (2, 3, 4)), ("Unflatten", (1, (2, 2)), (3, 4)),
    ("PixelShuffle", (2,), (1, 4, 2, 3)), ("PixelUnshuffle", (2,), (1, 1, 4, 2)),
    ("Upsample", (None, 2.0), (1, 2, 3, 2)), ("Upsample", ((5, 3), None, "bilinear"), (1, 2, 3, 2)),
    ("MaxPool1d", (2,), (1, 2, 5)), ("MaxPool2d", (3, 2, 1), (1, 2, 6, 5)),
    ("MaxPool3d", (2, None), (1, 1, 4, 3, 2)), ("AvgPool1d", (2, 1), (1, 2, 5)),
    ("AvgPool2d", ((2, 3), None, 1, True), (1, 2, 6, 5)), ("AvgPool3d", (2,), (1, 1, 4, 3, 2)),
    ("AdaptiveAvgPool1d", (3,), (1, 2, 5)), ("AdaptiveAvgPool2d", ((2, None),), (1, 2, 5, 3)),
    ("AdaptiveAvgPool3d", (1,), (1, 2, 3, 2, 2)), ("AdaptiveMaxPool1d", (3,), (1, 2, 5)),
    ("AdaptiveMaxPool2d", (2,), (1, 2, 5, 3)), ("AdaptiveMaxPool3d", (1,), (1, 2, 3, 2, 2)),
]  # fmt: skip


@pytest.mark.parametrize(("name", "arguments", "shape"), FUNCTIONS,
                         ids=[f"{n}{a}" for n, a, _ in FUNCTIONS])
def test_a_layer_without_parameters(
    name: str, arguments: tuple[Any, ...], shape: tuple[int, ...]
) -> None:
    x = floats(*shape)
    ours, theirs = getattr(nn, name)(*arguments), getattr(torch.nn, name)(*arguments)
    equal(ours(Tensor(x)), theirs(torch.tensor(x)), 1e-5, 1e-6)


def test_an_argument_that_a_layer_does_not_know_is_named() -> None:
    with pytest.raises(DtypeError, match=r"ReLU takes inplace.*nonsense"):
        nn.ReLU(nonsense=1)


def test_batch_norm_in_training_and_after() -> None:
    ours, theirs = nn.BatchNorm(3), torch.nn.BatchNorm2d(3)
    for seed in range(3):
        x = floats(4, 3, 2, 2, seed=seed)
        a, b = Tensor(x, requires_grad=True), torch.tensor(x, requires_grad=True)
        with Tensor.train():
            found = ours(a)
        expected = theirs(b)
        found.square().sum().backward()
        expected.square().sum().backward()
        equal(found, expected, 1e-4, 1e-5)
        equal(a.grad, b.grad, 1e-3, 1e-4)
    equal(ours.running_mean, theirs.running_mean)
    equal(ours.running_var, theirs.running_var)
    assert ours.num_batches_tracked.item() == 3
    theirs.eval()
    equal(ours(Tensor(x)), theirs(torch.tensor(x)), 1e-4, 1e-5)
    assert set(get_state_dict(ours)) == set(theirs.state_dict())


def test_batch_norm_without_statistics_of_its_own() -> None:
    ours = nn.BatchNorm2d(3, affine=False, track_running_stats=False)
    x = floats(4, 3, 2, 2)
    theirs = torch.nn.BatchNorm2d(3, affine=False, track_running_stats=False)
    equal(ours(Tensor(x)), theirs(torch.tensor(x)), 1e-4, 1e-5)


def test_layer_norm_of_images() -> None:
    x = floats(2, 3, 4, 5)
    wanted = torch.nn.functional.layer_norm(torch.tensor(x).permute(0, 2, 3, 1), (3,))
    equal(nn.LayerNorm2d(3)(Tensor(x)), wanted.permute(0, 3, 1, 2), 1e-4, 1e-5)


def test_embedding() -> None:
    ours, theirs = nn.Embedding(7, 3), torch.nn.Embedding(7, 3)
    load_from(theirs, ours)
    ours.weight.requires_grad_()
    index = np.array([[1, 2, 6], [1, 1, 0]])
    found, expected = ours(Tensor(index)), theirs(torch.tensor(index))
    equal(found, expected)
    found.square().sum().backward()
    expected.square().sum().backward()
    equal(ours.weight.grad, theirs.weight.grad)


def test_a_cell_of_a_long_short_term_memory() -> None:
    ours, theirs = nn.LSTMCell(3, 4), torch.nn.LSTMCell(3, 4)
    load_from(theirs, ours)
    for p in get_parameters(ours):
        p.requires_grad_()
    state: Any = None
    expected: Any = None
    for seed in range(2):
        x = floats(5, 3, seed=seed)
        state, expected = ours(Tensor(x), state), theirs(torch.tensor(x), expected)
    (state[0] + state[1]).square().sum().backward()
    (expected[0] + expected[1]).square().sum().backward()
    for found, wanted in zip(state, expected, strict=True):
        equal(found, wanted)
    reference = dict(theirs.named_parameters())
    for key, p in get_state_dict(ours).items():
        equal(p.grad, reference[key].grad, 1e-4, 1e-5)


def test_dropout_is_a_layer() -> None:
    x = Tensor.ones(10)
    assert nn.Dropout(0.5)(x) is x


def test_wrong_layers_are_named() -> None:
    with pytest.raises(ShapeError, match="3 and 4 channels"):
        nn.Conv2d(3, 4, 3, groups=2)
    with pytest.raises(ShapeError, match="5 channels"):
        nn.GroupNorm(2, 5)
    with pytest.raises(ShapeError, match=r"LayerNorm over \(4,\)"):
        nn.LayerNorm(4)(Tensor.ones(2, 3))
    with pytest.raises(ShapeError, match="'full'"):
        nn.Conv2d(1, 1, 3, padding="full")


# ---- optimisers ----

OPTIMISERS: list[tuple[str, Any, Any]] = [
    ("SGD", lambda p: nn.optim.SGD(p, 0.1), lambda p: torch.optim.SGD(p, 0.1)),
    ("SGD momentum", lambda p: nn.optim.SGD(p, 0.1, momentum=0.9, weight_decay=0.01),
     lambda p: torch.optim.SGD(p, 0.1, momentum=0.9, weight_decay=0.01)),
    ("SGD Nesterov", lambda p: nn.optim.SGD(p, 0.1, momentum=0.9, nesterov=True),
     lambda p: torch.optim.SGD(p, 0.1, momentum=0.9, nesterov=True)),
    ("Adam", lambda p: nn.optim.Adam(p, 0.1), lambda p: torch.optim.Adam(p, 0.1)),
    ("Adam decay", lambda p: nn.optim.Adam(p, 0.1, weight_decay=0.1),
     lambda p: torch.optim.Adam(p, 0.1, weight_decay=0.1)),
    ("AdamW", lambda p: nn.optim.AdamW(p, 0.1), lambda p: torch.optim.AdamW(p, 0.1)),
    ("Adam betas", lambda p: nn.optim.Adam(p, 0.1, betas=(0.8, 0.99), fused=True),
     lambda p: torch.optim.Adam(p, 0.1, betas=(0.8, 0.99))),
    ("RMSprop", lambda p: nn.optim.RMSprop(p, weight_decay=0.1),
     lambda p: torch.optim.RMSprop(p, weight_decay=0.1)),
    ("RMSprop centred", lambda p: nn.optim.RMSprop(p, 0.1, momentum=0.8, centered=True),
     lambda p: torch.optim.RMSprop(p, 0.1, momentum=0.8, centered=True)),
    ("Adagrad", lambda p: nn.optim.Adagrad(p, 0.1, lr_decay=0.1, initial_accumulator_value=0.2),
     lambda p: torch.optim.Adagrad(p, 0.1, lr_decay=0.1, initial_accumulator_value=0.2)),
    ("Adadelta", lambda p: nn.optim.Adadelta(p, weight_decay=0.1),
     lambda p: torch.optim.Adadelta(p, weight_decay=0.1)),
    ("Adamax", lambda p: nn.optim.Adamax(p, 0.1), lambda p: torch.optim.Adamax(p, 0.1)),
    ("NAdam", lambda p: nn.optim.NAdam(p, 0.1), lambda p: torch.optim.NAdam(p, 0.1)),
    ("RAdam", lambda p: nn.optim.RAdam(p, 0.1, betas=(0.9, 0.8)),
     lambda p: torch.optim.RAdam(p, 0.1, betas=(0.9, 0.8))),
    ("RAdam early", lambda p: nn.optim.RAdam(p, 0.1), lambda p: torch.optim.RAdam(p, 0.1)),
]  # fmt: skip


@pytest.mark.parametrize(("name", "ours", "theirs"), OPTIMISERS, ids=[c[0] for c in OPTIMISERS])
def test_an_optimiser(name: str, ours: Any, theirs: Any) -> None:
    start = [floats(3, 4), floats(4, seed=1)]
    a = [Tensor(x) for x in start]
    b = [torch.tensor(x, requires_grad=True) for x in start]
    x = floats(5, 3, seed=2)
    o, t = ours(a), theirs(b)
    with Tensor.train():
        for _ in range(5):
            o.zero_grad()
            t.zero_grad()
            (Tensor(x) @ a[0] + a[1]).square().mean().backward()
            (torch.tensor(x) @ b[0] + b[1]).square().mean().backward()
            o.step()
            t.step()
    for p, q in zip(a, b, strict=True):
        equal(p, q, 1e-4, 1e-5)


def _lars(w: Any, g: Any, v: Any, nesterov: bool, classic: bool, pre_wd: bool) -> tuple[Any, Any]:
    """One step as the paper has it, at a rate of 0.1, decay of 0.1 and trust of 0.01."""
    rate = 0.1 * 0.01 * np.linalg.norm(w) / (np.linalg.norm(g) + 0.1 * np.linalg.norm(w))
    g = g + 0.1 * w if pre_wd else g
    g = g * rate if classic else g
    v = 0.9 * v + g
    g = g + 0.9 * v if nesterov else v
    return (w if pre_wd else w * 0.99) - (g if classic else rate * g), v


@pytest.mark.parametrize("nesterov", [False, True])
@pytest.mark.parametrize("classic", [False, True])
@pytest.mark.parametrize("pre_wd", [False, True])
def test_lars(nesterov: bool, classic: bool, pre_wd: bool) -> None:
    w = floats(3, 4)
    parameter = Tensor(w)
    optimiser = nn.optim.LARS([parameter], 0.1, weight_decay=0.1, tcoef=0.01, nesterov=nesterov,
                              classic=classic, pre_wd=pre_wd)
    velocity = np.zeros_like(w)
    with Tensor.train():
        for seed in range(3):
            g = floats(3, 4, seed=seed + 1)
            parameter.grad = Tensor(g)
            optimiser.step()
            w, velocity = _lars(w, g, velocity, nesterov, classic, pre_wd)
    equal(parameter, w.astype(np.float32))


@pytest.mark.parametrize("adam", [False, True])
def test_lamb(adam: bool) -> None:
    w = floats(3, 4)
    parameter = Tensor(w)
    optimiser = nn.optim.LAMB([parameter], 0.1, weight_decay=0.1, adam=adam)
    m, v = np.zeros_like(w), np.zeros_like(w)
    with Tensor.train():
        for t in range(1, 4):
            g = floats(3, 4, seed=t)
            parameter.grad = Tensor(g)
            optimiser.step()
            m, v = 0.9 * m + 0.1 * g, 0.999 * v + 0.001 * g * g
            step = (m / (1 - 0.9**t)) / (np.sqrt(v / (1 - 0.999**t)) + 1e-6) + 0.1 * w
            trust = 1 if adam else np.linalg.norm(w) / np.linalg.norm(step)
            w = w - 0.1 * trust * step
    equal(parameter, w.astype(np.float32), 1e-4, 1e-5)


def test_muon_steps_along_an_orthogonal_matrix() -> None:
    w, g = floats(4, 3, 2), floats(4, 3, 2, seed=1)
    parameter = Tensor(w)
    optimiser = nn.optim.Muon([parameter], 0.1, ns_steps=12, ns_coefficients=(1.5, -0.5))
    parameter.grad = Tensor(g)
    with Tensor.train():
        optimiser.step()
    u, _, v = np.linalg.svd(g.reshape(4, 6), full_matrices=False)
    equal(parameter, (w * (1 - 0.1 * 0.1) - 0.1 * (u @ v).reshape(w.shape)), 1e-3, 1e-3)
    with pytest.raises(ShapeError, match="two axes"):
        nn.optim.Muon([Tensor(floats(3))])


def test_lars_along_an_orthogonal_matrix() -> None:
    w, g = floats(4, 3), floats(4, 3, seed=1)
    steps = []
    for ns_steps in (0, 12):
        parameter = Tensor(w)
        optimiser = nn.optim.LARS([parameter], 1.0, momentum=0, weight_decay=0, classic=False,
                                  ns_steps=ns_steps, ns_coefficients=(1.5, -0.5))
        parameter.grad = Tensor(g)
        with Tensor.train():
            optimiser.step()
        steps.append(w - parameter.numpy())
    u, s, v = np.linalg.svd(g, full_matrices=False)
    scale = 0.001 * np.linalg.norm(w) / np.linalg.norm(g)
    np.testing.assert_allclose(steps[0], scale * (u * s) @ v, rtol=1e-3, atol=1e-6)
    np.testing.assert_allclose(steps[1], scale * u @ v, rtol=1e-2, atol=1e-6)


def test_the_learning_rate_can_be_changed_and_assigned() -> None:
    p = Tensor([1.0])
    o = nn.optim.SGD([p], lr=0.5)
    with Tensor.train():
        p.sum().backward()
        o.step()
        assert p.tolist() == [0.5]
        o.lr.assign(o.lr * 0.5).realize()
        o.step()
    assert p.tolist() == [0.25]


def test_a_group_of_optimisers_steps_together() -> None:
    p, q = Tensor([1.0]), Tensor([1.0])
    group = nn.optim.OptimizerGroup(nn.optim.SGD([p], 0.1), nn.optim.SGD([q], 0.2))
    with Tensor.train():
        (p + q).sum().backward()
        group.step()
    np.testing.assert_allclose([p.item(), q.item()], [0.9, 0.8])
    group.zero_grad()
    assert p.grad is None and q.grad is None


def test_half_precision_parameters_keep_their_type() -> None:
    p = Tensor([1.0, 2.0], dtype="float16")
    o = nn.optim.Adam([p], 0.1)
    assert o.m[0].dtype is dtypes.float32
    with Tensor.train():
        p.float().sum().backward()
        o.step()
    assert p.dtype is dtypes.float16
    np.testing.assert_allclose(p.numpy(), [0.9, 1.9], rtol=1e-3)


def test_wrong_uses_of_an_optimiser_are_named() -> None:
    p = Tensor([1.0])
    o = nn.optim.SGD([p])
    with pytest.raises(GradientError, match=r"Tensor\.train\(\)"):
        o.step()
    with Tensor.train(), pytest.raises(GradientError, match="1 of 1 parameters have no gradient"):
        o.step()
    with pytest.raises(GradientError, match="at least one parameter"):
        nn.optim.SGD([Tensor([1.0], requires_grad=False)])
    with pytest.raises(SettingError, match="-1"):
        nn.optim.SGD([p], -1)
    with pytest.raises(SettingError, match="classic=False"):
        nn.optim.LARS([p], ns_steps=5)
    with pytest.raises(SettingError, match="two numbers"):
        nn.optim.Adam([p], 0.1, (0.9, 0.99))  # type: ignore[arg-type]
    with pytest.raises(SettingError, match="fused is"):
        nn.optim.SGD([p], fused="yes")  # type: ignore[arg-type]
    with pytest.raises(SettingError, match="momentum above 0"):
        nn.optim.SGD([p], nesterov=True)


# ---- the front page's net ----


class LinearNet:
    def __init__(self) -> None:
        self.l1 = Tensor.kaiming_uniform(784, 16)
        self.l2 = Tensor.kaiming_uniform(16, 10)

    def __call__(self, x: Tensor) -> Tensor:
        return x.flatten(1).dot(self.l1).relu().dot(self.l2)


def test_the_front_pages_net_learns() -> None:
    Tensor.manual_seed(3)
    model = LinearNet()
    optim = nn.optim.Adam([model.l1, model.l2], lr=0.01)
    x, y = Tensor.rand(16, 1, 28, 28), Tensor.randint(16, high=10)
    losses = []
    with Tensor.train():
        for _ in range(15):
            optim.zero_grad()
            loss = model(x).sparse_categorical_crossentropy(y).backward()
            optim.step()
            losses.append(loss.item())
    assert losses[-1] < 0.3 * losses[0]


def test_training_is_a_context_and_a_decorator() -> None:
    @Tensor.train()
    def inside() -> bool:
        with Tensor.test():
            assert not Tensor.training
        return Tensor.training

    assert inside() and not Tensor.training


# ---- state dicts ----


class Net:
    def __init__(self) -> None:
        self.layers = [nn.Linear(3, 4), Tensor.relu, nn.BatchNorm(4)]
        self.extra = {"scale": Tensor([2.0]), "none": None}
        self.myself = self


def test_state_dicts_name_every_tensor() -> None:
    assert list(get_state_dict(Net())) == [
        "layers.0.weight", "layers.0.bias", "layers.2.weight", "layers.2.bias",
        "layers.2.num_batches_tracked", "layers.2.running_mean", "layers.2.running_var",
        "extra.scale",
    ]  # fmt: skip


def test_a_model_goes_to_a_file_and_back(tmp_path: Path) -> None:
    first, second = Net(), Net()
    path = tmp_path / "net.safetensors"
    safe_save(get_state_dict(first), path, {"by": "test"})
    assert safe_load_metadata(path) == {"by": "test"}
    load_state_dict(second, safe_load(path))
    for name, tensor in get_state_dict(second).items():
        equal(tensor, get_state_dict(first)[name].numpy())


def test_every_type_goes_to_a_file_and_back(tmp_path: Path) -> None:
    tensors = {d.name: Tensor([[0, 1], [2, 3]], dtype=d) for d in dtypes.all}
    tensors |= {"scalar": Tensor(2.5), "none": Tensor.zeros(0, 3), "view": Tensor.eye(3)[:, 1]}
    path = tmp_path / "all.safetensors"
    safe_save(tensors, path)
    found = safe_load(path)
    for name, tensor in tensors.items():
        assert found[name].dtype is tensor.dtype and found[name].shape == tensor.shape
        assert found[name].tolist() == tensor.tolist()


def test_the_reference_reads_our_files_and_we_its(tmp_path: Path) -> None:
    safetensors = pytest.importorskip("safetensors.numpy")
    path = tmp_path / "x.safetensors"
    x = floats(3, 4)
    safe_save({"x": Tensor(x)}, path)
    np.testing.assert_array_equal(safetensors.load_file(path)["x"], x)
    safetensors.save_file({"x": x * 2}, path)
    np.testing.assert_array_equal(safe_load(path)["x"].numpy(), x * 2)


def test_state_that_does_not_fit_is_named(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    model = nn.Linear(2, 3)
    state = {"weight": Tensor.ones(3, 2), "bais": Tensor.ones(3)}
    with pytest.raises(StateMismatch, match="lacks bias and has bais"):
        load_state_dict(model, state)
    load_state_dict(model, copy.copy(state), strict=False, verbose=True)
    assert "leaves out bias and bais" in capsys.readouterr().out
    assert model.weight.tolist() == [[1, 1]] * 3
    with pytest.raises(ShapeError, match=r"weight has the shape \(3, 2\)"):
        load_state_dict(model, {"weight": Tensor.ones(2, 2)}, strict=False)
    path = tmp_path / "cut.safetensors"
    path.write_bytes(b"\x10\x00")
    with pytest.raises(TinyhwError, match="cut"):
        safe_load(path)
