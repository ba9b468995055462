"""Random numbers: the generator's known answers, distributions, reproducibility, initialisers."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest

from tinyhw import Device, Tensor, TinyJit, dtypes
from tinyhw.errors import DtypeError, ShapeError
from tinyhw.random import _threefry


def test_random_bits_are_threefrys_of_halves() -> None:
    def words(*values: int) -> Tensor:
        return Tensor(np.array(values, np.uint32))

    # What tinygrad 0.14 gives.
    assert Tensor.random_bits(words(1, 2), words(5, 7), 5).tolist() == [
        381594987, 2285191632, 2849237556, 2200916689, 5074432
    ]  # fmt: skip
    assert Tensor.random_bits(words(1, 2), words(5, 7), 1).tolist() == [1059393988]
    assert Tensor.random_bits(words(1, 2), words(5, 7), 0).shape == (0,)
    with pytest.raises(DtypeError, match="two uint32"):
        Tensor.random_bits(words(1), words(5, 7), 2)


@pytest.mark.parametrize(
    ("key", "counter", "words"),
    [  # Random123 1.14, tests/kat_vectors: threefry2x32 20
        ((0, 0), (0, 0), (0x6B200159, 0x99BA4EFE)),
        ((0xFFFFFFFF,) * 2, (0xFFFFFFFF,) * 2, (0x1CB996FC, 0xBB002BE7)),
        ((0x13198A2E, 0x03707344), (0x243F6A88, 0x85A308D3), (0xC4923A9C, 0x483DF7A0)),
    ],
)
def test_the_generator_gives_the_published_words(key: Any, counter: Any, words: Any) -> None:
    parts = [Tensor(np.array([w], np.uint32)) for w in (*key, *counter)]
    first, second = _threefry(*parts)
    assert (first.item(), second.item()) == words


def test_a_seed_gives_the_same_numbers_again() -> None:
    Tensor.manual_seed(7)
    a, b = Tensor.rand(50).numpy(), Tensor.randn(50).numpy()
    Tensor.manual_seed(7)
    np.testing.assert_array_equal(Tensor.rand(50).numpy(), a)
    np.testing.assert_array_equal(Tensor.randn(50).numpy(), b)
    Tensor.manual_seed(8)
    assert not np.array_equal(Tensor.rand(50).numpy(), a)


def test_the_order_of_realizing_does_not_matter() -> None:
    Tensor.manual_seed(7)
    a, b = Tensor.rand(9).numpy(), Tensor.rand(9).numpy()
    Tensor.manual_seed(7)
    first, second = Tensor.rand(9), Tensor.rand(9)
    np.testing.assert_array_equal(second.numpy(), b)
    np.testing.assert_array_equal(first.numpy(), a)
    assert not np.array_equal(a, b)


def test_every_device_draws_the_same_numbers() -> None:
    drawn = []
    for device in ("LLVM", "CLANG"):
        try:
            Device[device]
        except Exception as error:
            pytest.skip(f"{device} does not open here: {error}")
        Tensor.manual_seed(3)
        drawn.append((Tensor.rand(100, device=device).numpy(),
                      Tensor.randint(100, high=1000, device=device).numpy()))
    for a, b in zip(*drawn, strict=True):
        np.testing.assert_array_equal(a, b)


def test_uniform_numbers_are_uniform() -> None:
    Tensor.manual_seed(1)
    for dtype in ("float32", "float64", "float16"):
        x = Tensor.rand(200, 100, dtype=dtype).numpy().astype(np.float64)
        assert 0 <= x.min() < 0.01 and 0.99 < x.max() < 1
        counts, _ = np.histogram(x, 20, (0, 1))
        assert np.abs(counts - 1000).max() < 150
    assert Tensor.rand(4, dtype="bfloat16").numpy().max() < 1
    low = Tensor.uniform(1000, low=-3, high=5).numpy()
    assert -3 <= low.min() < -2.9 and 4.9 < low.max() < 5


def test_normal_numbers_are_normal() -> None:
    Tensor.manual_seed(1)
    x = Tensor.normal(200, 100, mean=2.0, std=3.0).numpy()
    assert np.isfinite(x).all()
    assert abs(x.mean() - 2) < 0.1 and abs(x.std() - 3) < 0.1
    inside = np.mean(np.abs(x - 2) < 3)
    assert abs(inside - 0.6827) < 0.02


def test_integers_fill_their_range() -> None:
    Tensor.manual_seed(1)
    x = Tensor.randint(1000, low=-2, high=3)
    assert x.dtype is dtypes.int32
    assert set(x.tolist()) == {-2, -1, 0, 1, 2}
    assert Tensor.randint(5, high=200, dtype="uint8").dtype is dtypes.uint8


def test_permutations() -> None:
    Tensor.manual_seed(1)
    p = Tensor.randperm(50).tolist()
    assert sorted(p) == list(range(50)) and p != sorted(p)


def test_bernoulli() -> None:
    Tensor.manual_seed(1)
    assert abs(Tensor.bernoulli(5000, p=0.3).mean().item() - 0.3) < 0.03


def test_layers_start_within_their_bounds() -> None:
    Tensor.manual_seed(1)
    bounds = {
        "scaled_uniform": 1 / math.sqrt(2000),
        "glorot_uniform": math.sqrt(6 / 90),
        "kaiming_uniform": math.sqrt(6 / (1.0001 * 50)),
    }
    for name, bound in bounds.items():
        x = np.abs(getattr(Tensor, name)(40, 50).numpy())
        assert 0.98 * bound < x.max() <= bound
    std = Tensor.kaiming_normal(40, 50).numpy().std()
    assert abs(std - math.sqrt(2 / 50)) < 0.02


def test_dropout_works_in_training_only_and_keeps_the_mean() -> None:
    Tensor.manual_seed(1)
    x = Tensor.ones(100, 100)
    assert x.dropout(0.5) is x
    with Tensor.train():
        dropped = x.dropout(0.25).numpy()
        assert x.dropout(0) is x
        assert not x.dropout(1).numpy().any()
    assert set(np.unique(dropped)) == {np.float32(0), np.float32(1 / 0.75)}
    assert abs(dropped.mean() - 1) < 0.05


def test_the_gradient_of_dropout_has_the_same_mask() -> None:
    Tensor.manual_seed(1)
    x = Tensor.ones(64, requires_grad=True)
    with Tensor.train():
        y = x.dropout(0.5)
        y.sum().backward()
    np.testing.assert_array_equal(y.numpy(), x.grad.numpy())


def test_a_replayed_capture_draws_new_numbers_and_follows_the_seed() -> None:
    @TinyJit
    def draw() -> Tensor:
        return Tensor.rand(8).realize()

    Tensor.manual_seed(5)
    first = [draw().tolist() for _ in range(5)]
    assert len(set(map(tuple, first))) == 5
    Tensor.manual_seed(5)
    assert [draw().tolist() for _ in range(5)] == first
    Tensor.manual_seed(5)
    assert [Tensor.rand(8).tolist() for _ in range(5)] == first


def test_two_parameters_differ() -> None:
    a, b = Tensor.rand(5, requires_grad=True), Tensor.rand(5, requires_grad=True)
    assert not np.array_equal(a.numpy(), b.numpy())


def test_wrong_arguments_are_named() -> None:
    with pytest.raises(DtypeError, match="int32"):
        Tensor.rand(3, dtype="int32")
    with pytest.raises(DtypeError, match="integers, not 0"):
        Tensor.randint(3, low=0.5)  # type: ignore[arg-type]
    with pytest.raises(ShapeError, match="3, 3"):
        Tensor.randint(3, low=3, high=3)
    with pytest.raises(DtypeError, match="seed"):
        Tensor.manual_seed("x")  # type: ignore[arg-type]
    with pytest.raises(ShapeError, match="probability"):
        Tensor.ones(3).dropout(1.5)


def test_threefry_gives_the_published_words() -> None:
    zero = Tensor(np.zeros(1, np.uint64))  # Random123's kat_vectors: threefry2x32, 20 rounds
    assert zero.threefry(zero).item() == 0x99BA4EFE6B200159


@pytest.mark.parametrize("replacement", [False, True])
def test_multinomial_draws_by_weight(replacement: bool) -> None:
    Tensor.manual_seed(3)
    weights = np.array([1.0, 2.0, 0.0, 5.0], np.float32)
    rows = Tensor(np.tile(weights, (4000, 1))).multinomial(2, replacement).numpy()
    share = np.bincount(rows[:, 0], minlength=4) / 4000
    np.testing.assert_allclose(share, weights / 8, atol=0.03)
    assert (rows[:, 0] == rows[:, 1]).any() == replacement
    assert (rows != 2).all()
    with pytest.raises(ShapeError, match="5 of 4"):
        Tensor(weights).multinomial(5)
