"""A real network from a .pth file names what is on three real photographs."""

from __future__ import annotations

from pathlib import Path

import pytest

import classify


def test_three_photographs_are_named() -> None:
    pytest.importorskip("PIL", reason="photographs need `pip install pillow`")
    try:
        paths = [classify.find(*each) for each in (*classify.PHOTOGRAPHS, classify.WEIGHTS)]
    except FileNotFoundError as missing:
        pytest.skip(str(missing))
    found = classify.classify(paths[:3])
    names = [classify.NAMES.get(best) for best, _ in found]
    assert names == ["military uniform", "palace", "daisy"]
    assert all(0.15 < chance < 0.95 for _, chance in found)


def test_a_package_that_is_missing_is_named() -> None:
    with pytest.raises(FileNotFoundError, match="package no_such_package is not there: pip inst"):
        classify.find("no_such_package", "x")
    assert classify.same_padding(224, 3, 2) == (0, 1)
    assert classify.same_padding(7, 5, 1) == (2, 2)
    assert isinstance(classify.find("tinyhw", "tensor.py"), Path)
