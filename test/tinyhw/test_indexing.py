"""Reading by position: ints, slices, None, Ellipsis, lists and tensors, against NumPy."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from test.tinyhw.compare import equal, floats, forward, integers, same, torch
from tinyhw import Tensor
from tinyhw.errors import DtypeError, IndexOutOfRange, ShapeError

BASIC: list[Any] = [
    0,
    -1,
    (1, 2),
    (1, -2, 3),
    slice(1, None),
    slice(None, None, -1),
    (slice(None), slice(None, None, 2)),
    (slice(None), slice(2, 0, -1), slice(None, None, -3)),
    (..., 1),
    (1, ..., slice(1, 3)),
    None,
    (slice(None), None, 1, ..., None),
    slice(2, 1),
    slice(-100, 100),
    (),
]


@pytest.mark.parametrize("index", BASIC, ids=str)
def test_basic_indexing(index: Any) -> None:
    x = floats(3, 4, 5)
    equal(Tensor(x)[index], x[index])


def test_gradient_of_basic_indexing() -> None:
    same(lambda x: x[1:, ::2, -1], floats(3, 4, 5))
    same(lambda x: x.flip((0,))[::2] * x[1, 0, 0], floats(3, 4, 5))


ADVANCED: list[Any] = [
    [2, 0, 0],
    (slice(None), [1, -1]),
    (slice(None), slice(None), [[0, 4], [-5, 2]]),
    ([0, 2], [1, 3]),
    ([[0], [2]], [1, 3]),
    ([0, 2], slice(None), [1, 3]),
    (slice(1, 3), [0, 1], [2, 2]),
    ([1], None, [2]),
    (..., [0, 0, 1]),
]


@pytest.mark.parametrize("index", ADVANCED, ids=str)
def test_advanced_indexing(index: Any) -> None:
    x = floats(3, 4, 5)
    same(lambda t: t[index], x)
    entries = index if isinstance(index, tuple) else (index,)
    tensors = tuple(Tensor(e) if isinstance(e, list) else e for e in entries)
    equal(Tensor(x)[tensors], x[index])


@given(st.data())
@settings(max_examples=30)
def test_random_basic_indices(data: st.DataObject) -> None:
    shape = data.draw(st.lists(st.integers(1, 5), min_size=1, max_size=3))
    x = np.arange(np.prod(shape), dtype=np.int32).reshape(shape)
    entry = st.one_of(
        st.slices(5), st.none(), st.integers(-1, 0)
    )
    index = tuple(data.draw(st.lists(entry, max_size=len(shape))))
    equal(Tensor(x)[index], x[index])


def test_positions_outside_read_zero_when_known_only_on_the_device() -> None:
    x = Tensor([1.0, 2.0, 3.0])
    assert x[Tensor([0, 3, -3, -4])].tolist() == [1, 0, 1, 0]
    y = Tensor(floats(2, 3))
    assert y[Tensor([0, 1]), Tensor([3, 0])].tolist()[0] == 0


def test_positions_of_other_integer_types() -> None:
    x = floats(300)
    for dtype in ("uint8", "int8", "int64", "uint32"):
        equal(Tensor(x)[Tensor(np.array([3, 100], dtype))], x[[3, 100]])


def test_empty_lists_of_positions() -> None:
    assert Tensor(floats(3, 4))[[]].numpy().shape == (0, 4)


@pytest.mark.parametrize(
    ("index", "error", "says"),
    [
        (3, IndexOutOfRange, r"Index 3 is out of range for an axis of 3.*\[-3, 2\]"),
        ((0, 0, 0, 0), IndexOutOfRange, "4 entries"),
        ([0, 7], IndexOutOfRange, "Index 7"),
        (1.5, DtypeError, "1.5"),
        ([0.5], DtypeError, "float64"),
        ((..., ...), ShapeError, "one Ellipsis"),
        (slice(None, None, 0), ShapeError, "step"),
        ([True, False], IndexOutOfRange, "mask of 2"),
        ("a", DtypeError, "'a'"),
    ],
)
def test_a_wrong_index_is_named(index: Any, error: type[Exception], says: str) -> None:
    with pytest.raises(error, match=says):
        Tensor(floats(3, 4, 5))[index]


def test_64_bit_positions_in_a_view_that_divides_them() -> None:
    """Such a position has no bound; making it positive before the division must not overflow."""
    stored = np.arange(64, dtype=np.float32).reshape(2, 16, 2)
    places = np.random.default_rng(0).integers(0, 2, (2, 1, 16))
    x = Tensor(stored).realize().permute(0, 2, 1) * 2
    expected = np.take_along_axis(2 * stored.transpose(0, 2, 1), places, 1)
    np.testing.assert_array_equal(x.gather(1, Tensor(places)).numpy(), expected)


def test_gather_along_an_axis() -> None:
    index = integers(2, 3, low=0, high=4, dtype="int64")
    same(lambda x, i: x.gather(1, i), floats(3, 4), index)
    same(lambda x, i: x.gather(0, i), floats(4, 5), index)
    forward(lambda x, i: x.gather(1, i), integers(3, 4), index)
    with pytest.raises(ShapeError, match="no other axis may be longer"):
        Tensor(floats(1, 4)).gather(1, Tensor(index))


def test_one_hot() -> None:
    x = integers(2, 3, low=0, high=4, dtype="int64")
    forward(lambda t: t.one_hot(5).long(), x, theirs=lambda t: torch.nn.functional.one_hot(t, 5))
    assert Tensor(x).one_hot().shape == (2, 3, int(x.max()) + 1)


@pytest.mark.parametrize("diagonal", [-2, 0, 1])
def test_triangles(diagonal: int) -> None:
    same(lambda x: x.tril(diagonal), floats(2, 3, 4))
    same(lambda x: x.triu(diagonal), floats(2, 3, 4))


def test_iterating_and_length() -> None:
    x = floats(3, 2)
    assert len(Tensor(x)) == 3
    for row, expected in zip(Tensor(x), x, strict=True):
        equal(row, expected)
