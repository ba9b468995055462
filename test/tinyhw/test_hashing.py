"""Hashes of bytes against hashlib."""

from __future__ import annotations

import hashlib

import numpy as np
import pytest

from tinyhw import Tensor
from tinyhw.errors import DtypeError, ShapeError


@pytest.mark.parametrize(
    ("name", "length"), [("sha3_256", 136), ("shake_128", 0), ("sha3_512", 71)]
)
def test_keccak(name: str, length: int) -> None:
    messages = np.random.default_rng(length).integers(0, 256, (2, length), np.uint8)
    found = Tensor(messages).keccak(name).numpy()
    for message, digest in zip(messages, found, strict=True):
        wanted = hashlib.new(name, message.tobytes())
        size = {"length": 16} if name.startswith("shake") else {}
        assert digest.tobytes() == wanted.digest(**size)  # type: ignore[call-arg]


def test_keccak_names_what_it_does_not_know() -> None:
    with pytest.raises(ShapeError, match=r"sha3_256.*'md5'"):
        Tensor(b"abc").keccak("md5")
    with pytest.raises(DtypeError, match="int32"):
        Tensor([1, 2]).keccak()
