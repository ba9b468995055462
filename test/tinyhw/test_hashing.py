"""Hashes of bytes against hashlib."""

from __future__ import annotations

import hashlib

import numpy as np
import pytest

from tinyhw import Tensor, hashing
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


def tree(message: bytes, leaf: int, chunk: int) -> bytes:
    """What `hash` computes, by hashlib."""

    def short(part: bytes) -> bytes:
        return hashlib.shake_128(part).digest(16)

    while True:
        message += bytes(-len(message) % chunk if message else chunk)
        leaves = b"".join(short(message[i : i + leaf]) for i in range(0, len(message), leaf))
        message = b"".join(short(leaves[i : i + leaf]) for i in range(0, len(leaves), leaf))
        if len(message) == 16:
            return message


@pytest.mark.parametrize("length", [0, 5, 256, 257, 256 * 17])
def test_a_tree_of_hashes(length: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hashing, "LEAF", 64)
    monkeypatch.setattr(hashing, "CHUNK", 256)
    message = np.random.default_rng(length).integers(0, 256, length, np.uint8)
    assert Tensor(message).hash().numpy().tobytes() == tree(message.tobytes(), 64, 256)


def test_a_hash_is_that_of_the_bytes_as_tinygrad_has_it() -> None:
    message = np.array([[1, 2, 3]], np.float32)
    found = Tensor(message).hash().numpy().tobytes()
    assert found == tree(message.tobytes(), 1 << 12, 1 << 20)
    assert found.hex() == "21445422d09323414c566e6422f84d74"  # tinygrad 0.14's, as it ran


def test_keccak_names_what_it_does_not_know() -> None:
    with pytest.raises(ShapeError, match=r"sha3_256.*'md5'"):
        Tensor(b"abc").keccak("md5")
    with pytest.raises(DtypeError, match="int32"):
        Tensor([1, 2]).keccak()
