"""Reshaping, reordering, repeating, cutting, padding and joining against PyTorch."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from test.tinyhw.compare import equal, floats, forward, integers, names, same, torch
from tinyhw import Tensor
from tinyhw.errors import DtypeError, IndexOutOfRange, NoSuchMethod, ShapeError

pad = torch.nn.functional.pad

# (name, ours, theirs); x: (2, 3, 4)
ONE: list[tuple[str, Any, Any]] = [
    ("reshape", lambda x: x.reshape(6, 4), None),
    ("reshape -1", lambda x: x.reshape(-1, 2), None),
    ("reshape None", lambda x: x.reshape(None, -1), lambda x: x.reshape(2, 12)),
    ("view", lambda x: x.view((4, 6)), None),
    ("flatten", lambda x: x.flatten(), None),
    ("flatten tail", lambda x: x.flatten(1), None),
    ("flatten head", lambda x: x.flatten(0, 1), None),
    ("unflatten", lambda x: x.unflatten(2, (2, -1)), None),
    ("permute", lambda x: x.permute(2, 0, 1), None),
    ("transpose", lambda x: x.transpose(0, 2), None),
    ("T", lambda x: x.reshape(6, 4).T, None),
    ("flip", lambda x: x.flip((0, 2)), None),
    ("flip one", lambda x: x.flip(-1), lambda x: x.flip((-1,))),
    ("unsqueeze", lambda x: x.unsqueeze(1), None),
    ("unsqueeze end", lambda x: x.unsqueeze(-1), None),
    ("squeeze", lambda x: x.unsqueeze(0).unsqueeze(2).squeeze(), None),
    ("squeeze one", lambda x: x.unsqueeze(0).squeeze(0), None),
    ("expand", lambda x: x.unsqueeze(1).expand(2, 5, 3, 4), None),
    ("expand -1", lambda x: x.unsqueeze(0).expand(3, -1, -1, -1), None),
    ("repeat", lambda x: x.repeat(2, 1, 3), None),
    ("repeat grown", lambda x: x.repeat((2, 1, 2, 1)), None),
    ("repeat_interleave", lambda x: x.repeat_interleave(2, 1), None),
    ("shrink", lambda x: x.shrink(((0, 1), None, (1, 3))), lambda x: x[0:1, :, 1:3]),
    ("pad pairs", lambda x: x.pad(((1, 0), None, (2, 1))), lambda x: pad(x, (2, 1, 0, 0, 1, 0))),
    ("pad flat", lambda x: x.pad((1, 2, 0, 3)), lambda x: pad(x, (1, 2, 0, 3))),
    ("pad value", lambda x: x.pad((1, 2), value=7.0), lambda x: pad(x, (1, 2), value=7.0)),
    ("pad inf", lambda x: x.pad((1, 0), value=-np.inf).max(-1).relu(),
     lambda x: pad(x, (1, 0), value=-np.inf).amax(-1).relu()),
    ("pad negative", lambda x: x.pad((-1, 2)), lambda x: pad(x, (-1, 2))),
    ("pad reflect", lambda x: x.pad((2, 3), mode="reflect"), lambda x: pad(x, (2, 3), "reflect")),
    ("pad replicate", lambda x: x.pad((2, 0), mode="replicate"),
     lambda x: pad(x, (2, 0), "replicate")),
    ("pad circular", lambda x: x.pad((4, 1), mode="circular"),
     lambda x: pad(x, (4, 1), "circular")),
    ("roll", lambda x: x.roll(3, 2), None),
    ("roll two", lambda x: x.roll((1, -1), (0, 2)), None),
    ("split", lambda x: x.split(2, 1)[1], None),
    ("split sizes", lambda x: x.split((1, 3), 2)[1], None),
    ("chunk", lambda x: x.chunk(3, 2)[1], None),
    ("chain", lambda x: x.permute(1, 0, 2).flip((0,)).reshape(3, 8)[:, ::3], None),
]  # fmt: skip


@pytest.mark.parametrize(("name", "ours", "theirs"), ONE, ids=names(ONE))
def test_a_movement(name: str, ours: Any, theirs: Any) -> None:
    same(ours, floats(2, 3, 4), theirs=theirs)


def test_joining() -> None:
    x, y, z = floats(2, 3), floats(4, 3, seed=1), floats(1, 3, seed=2)
    same(lambda *t: t[0].cat(*t[1:]), x, y, z, theirs=lambda *t: torch.cat(t))
    same(lambda a, b: a.cat(b, dim=-1), x, floats(2, 5), theirs=lambda *t: torch.cat(t, -1))
    same(lambda a, b: a.stack(b, dim=1), x, floats(2, 3, seed=4),
         theirs=lambda *t: torch.stack(t, 1))
    forward(lambda a, b: a.cat(b), integers(3), x[0], theirs=lambda *t: torch.cat(t))
    forward(lambda a, b: a.cat(b), floats(0, 3), x, theirs=lambda *t: torch.cat(t))


def test_joining_keeps_what_is_not_a_number_and_the_sign_of_zero() -> None:
    parts = [np.array([np.nan, -0.0], np.float32), np.array([np.inf, -0.0], np.float32)]
    joined = Tensor(parts[0]).cat(Tensor(parts[1])).numpy()
    np.testing.assert_array_equal(joined, np.concatenate(parts))
    np.testing.assert_array_equal(np.signbit(joined), np.signbit(np.concatenate(parts)))


def test_views_of_views_read_the_right_elements() -> None:
    x = np.arange(60, dtype=np.float32).reshape(3, 4, 5)
    t = Tensor(x)
    turned = x.transpose(2, 0, 1).reshape(15, 4)
    equal(t.permute(2, 0, 1).reshape(15, 4)[::2, 1:].T, turned[::2, 1:].T)
    equal(t.flip(1).reshape(12, 5).pad((1, 1)).reshape(-1)[7:30],
          np.pad(x[:, ::-1].reshape(12, 5), ((0, 0), (1, 1))).reshape(-1)[7:30])


def test_empty_tensors_move() -> None:
    t = Tensor.zeros(0, 3)
    assert t.reshape(3, 0).shape == (3, 0)
    assert t.numpy().shape == (0, 3)
    assert t.pad(((1, 0), None)).numpy().shape == (1, 3)
    assert t.sum(0).tolist() == [0, 0, 0]


def test_scalars_move() -> None:
    t = Tensor(3.0)
    assert t.reshape(1, 1).shape == (1, 1)
    assert t.expand(2, 2).tolist() == [[3, 3], [3, 3]]
    assert t.unsqueeze(0).shape == (1,)
    assert t.flatten().shape == (1,)
    assert t.transpose(0, 0).item() == 3.0
    assert t.permute(()).item() == 3.0


WRONG: list[tuple[str, Any, type[Exception], str]] = [
    ("reshape", lambda x: x.reshape(5, 5), ShapeError, "24 elements are not 25"),
    ("reshape two", lambda x: x.reshape(-1, -1), ShapeError, "Only one"),
    ("reshape rest", lambda x: x.reshape(-1, 7), ShapeError, "multiple of 7"),
    ("reshape negative", lambda x: x.reshape(-2, -12), ShapeError, "negative"),
    ("reshape float", lambda x: x.reshape(2.0, 12), DtypeError, "2.0"),
    ("permute", lambda x: x.permute(0, 0, 1), ShapeError, "not an order"),
    ("axis", lambda x: x.transpose(0, 3), IndexOutOfRange, "Axis 3"),
    ("expand", lambda x: x.expand(2, 3, 5), ShapeError, "must be 1"),
    ("shrink", lambda x: x.shrink(((0, 3), None, None)), IndexOutOfRange, "an axis of 2"),
    ("shrink rank", lambda x: x.shrink(((0, 1),)), ShapeError, "1 limits"),
    ("pad rank", lambda x: x.pad((1,)), ShapeError, "flat padding"),
    ("pad mode", lambda x: x.pad((1, 1), mode="mirror"), ShapeError, "mirror"),
    ("pad reflect", lambda x: x.pad((4, 0), mode="reflect"), ShapeError, "from 0 to 3"),
    ("cat", lambda x: x.cat(x.reshape(4, 6)), ShapeError, "every other extent"),
    ("split", lambda x: x.split((1, 1), 0)[0].split((2, 3)), ShapeError, "5 in all"),
    ("repeat", lambda x: x.repeat(2), ShapeError, "1 counts"),
]


@pytest.mark.parametrize(("name", "function", "error", "says"), WRONG, ids=names(WRONG))
def test_a_wrong_movement_is_named(name: str, function: Any, error: Any, says: str) -> None:
    with pytest.raises(error, match=says):
        function(Tensor(floats(2, 3, 4)))


def test_missing_methods_are_named() -> None:
    t = Tensor([1.0])
    with pytest.raises(NoSuchMethod, match="'allreduce': it is not supported yet"):
        t.allreduce()
    with pytest.raises(AttributeError, match=r"no method 'frobnicate'\."):
        t.frobnicate()
    assert not hasattr(t, "allreduce")
