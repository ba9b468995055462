"""Data sets: fetched over a real socket, believed only by digest, never half-written."""

from __future__ import annotations

import gzip
import hashlib
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from drivers.errors import MalformedInput
from tinyhw.nn import datasets
from tinyhw.nn.datasets import DataFile, DataSet, DataUnavailable, load_idx, parse_idx


def idx_bytes(array: np.ndarray[tuple[int, ...], np.dtype[np.uint8]]) -> bytes:
    extents = b"".join(extent.to_bytes(4, "big") for extent in array.shape)
    return bytes([0, 0, 8, array.ndim]) + extents + array.tobytes()


IMAGES = np.arange(2 * 3 * 4, dtype=np.uint8).reshape(2, 3, 4)
LABELS = np.array([7, 1], np.uint8)
CONTENTS = {"images": idx_bytes(IMAGES), "labels": idx_bytes(LABELS)}
FILES = tuple(
    DataFile(name, len(content), hashlib.sha256(content).hexdigest())
    for name, content in CONTENTS.items()
)


class Mirror:
    """A real HTTP server on the loopback interface; `replies` maps paths to bodies."""

    def __init__(self) -> None:
        self.replies: dict[str, bytes] = {}
        self.requests: list[str] = []
        mirror = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                mirror.requests.append(self.path)
                body = mirror.replies.get(self.path)
                self.send_response(200 if body is not None else 404)
                self.end_headers()
                self.wfile.write(body or b"")

            def log_message(self, format: str, *args: object) -> None:
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_port}/"
        self.thread = threading.Thread(target=self.server.serve_forever, args=(0.01,), daemon=True)
        self.thread.start()

    def serve(self, contents: dict[str, bytes]) -> None:
        self.replies = {f"/{name}.gz": gzip.compress(body) for name, body in contents.items()}

    def close(self) -> None:
        self.server.shutdown()
        self.server.server_close()
        self.thread.join()


@pytest.fixture
def mirror(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Mirror]:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    found = Mirror()
    yield found
    found.close()


def dataset(mirror: Mirror) -> DataSet:
    return DataSet("tiny", FILES, mirrors=(mirror.url,))


def cached_names(tmp_path: Path) -> list[str]:
    return sorted(path.name for path in (tmp_path / "cache/tinyhw/datasets/tiny").iterdir())


def test_files_are_fetched_once_and_then_come_from_the_cache(
    mirror: Mirror, tmp_path: Path
) -> None:
    mirror.serve(CONTENTS)
    for _ in range(2):
        images, labels = load_idx(dataset(mirror))
        np.testing.assert_array_equal(images, IMAGES)
        np.testing.assert_array_equal(labels, LABELS)
    assert mirror.requests == ["/images.gz", "/labels.gz"]
    assert cached_names(tmp_path) == ["images", "labels"]


@pytest.mark.parametrize("damage", [b"", CONTENTS["labels"][:-1], b"x" * len(CONTENTS["labels"])])
def test_a_damaged_file_in_the_cache_is_fetched_again(
    mirror: Mirror, tmp_path: Path, damage: bytes
) -> None:
    mirror.serve(CONTENTS)
    load_idx(dataset(mirror))
    (tmp_path / "cache/tinyhw/datasets/tiny/labels").write_bytes(damage)
    np.testing.assert_array_equal(load_idx(dataset(mirror))[1], LABELS)
    assert mirror.requests == ["/images.gz", "/labels.gz", "/labels.gz"]


@pytest.mark.parametrize(
    ("body", "reason"),
    [
        (None, "404"),
        (b"no gzip at all", "incorrect header check"),
        (gzip.compress(CONTENTS["labels"])[:12], "labels has . bytes with SHA-256"),
        (gzip.compress(b"x" * len(CONTENTS["labels"])), "labels has 10 bytes with SHA-256"),
        (gzip.compress(bytes(1 << 24)), "labels has 11 bytes with SHA-256"),
    ],
    ids=["absent", "no gzip", "truncated", "other content", "far too long"],
)
def test_a_bad_mirror_is_named_and_leaves_nothing_behind(
    mirror: Mirror, tmp_path: Path, body: bytes | None, reason: str
) -> None:
    mirror.serve({"images": CONTENTS["images"]})
    if body is not None:
        mirror.replies["/labels.gz"] = body
    with pytest.raises(DataUnavailable, match=reason) as raised:
        load_idx(dataset(mirror))
    assert mirror.url in str(raised.value)
    assert "Put labels (uncompressed) into" in str(raised.value)
    assert cached_names(tmp_path) == ["images"]


def test_the_next_source_serves_what_the_first_lacks(mirror: Mirror, tmp_path: Path) -> None:
    mirror.serve({"images": CONTENTS["images"]})
    (tmp_path / "labels.gz").write_bytes(gzip.compress(CONTENTS["labels"]))
    (tmp_path / "images.gz").write_bytes(b"damaged")
    both = replace(dataset(mirror), folder=str(tmp_path))
    with pytest.raises(DataUnavailable, match="incorrect header check"):
        load_idx(both)
    mirror.serve(CONTENTS)
    np.testing.assert_array_equal(load_idx(both)[1], LABELS)


def test_without_any_source_the_remedy_says_where_to_put_the_files(
    mirror: Mirror, tmp_path: Path
) -> None:
    nowhere = DataSet("tiny", FILES, mirrors=())
    with pytest.raises(DataUnavailable, match="Put images, labels"):
        load_idx(nowhere)
    folder = tmp_path / "cache/tinyhw/datasets/tiny"
    folder.mkdir(parents=True, exist_ok=True)
    for name, content in CONTENTS.items():
        (folder / name).write_bytes(content)
    np.testing.assert_array_equal(load_idx(nowhere)[0], IMAGES)


def test_a_cache_that_cannot_be_made_is_one_sentence(
    mirror: Mirror, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    with pytest.raises(DataUnavailable, match="Not a directory"):
        load_idx(dataset(mirror))


def test_many_at_once_all_get_whole_files(mirror: Mirror, tmp_path: Path) -> None:
    mirror.serve(CONTENTS)
    with ThreadPoolExecutor(8) as pool:
        for images, _ in pool.map(lambda _: load_idx(dataset(mirror)), range(16)):
            np.testing.assert_array_equal(images, IMAGES)
    assert cached_names(tmp_path) == ["images", "labels"]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "starts with b''"),
        (b"\0\1\10\1", "not with an IDX header"),
        (b"\0\0\15\1\0\0\0\0", "type 13; only 8"),
        (b"\0\0\10\0", "0 dimensions"),
        (b"\0\0\10\4" + bytes(16), "4 dimensions"),
        (b"\0\0\10\3" + bytes(11), "ends after 15 bytes, within its header"),
        (CONTENTS["images"][:-1], r"\(2, 3, 4\) needs 24 bytes; the file has 23"),
        (CONTENTS["images"] + b"x", r"needs 24 bytes; the file has 25"),
        (b"\0\0\10\3" + b"\xff" * 12, r"needs 79228162458924105385300197375 bytes"),
    ],
)
def test_a_malformed_idx_file_is_refused(content: bytes, message: str) -> None:
    with pytest.raises(MalformedInput, match=message):
        parse_idx(np.frombuffer(content, np.uint8), "some file")


@given(st.binary(max_size=40))
def test_any_bytes_are_an_array_or_refused(content: bytes) -> None:
    try:
        array = parse_idx(np.frombuffer(b"\0\0\10" + content, np.uint8), "some file")
    except MalformedInput:
        return
    assert array.nbytes <= len(content)


def test_mnist_is_the_real_one() -> None:
    try:
        X_train, Y_train, X_test, Y_test = datasets.load_mnist()
    except DataUnavailable as error:
        pytest.skip(str(error))
    assert X_train.shape == (60_000, 1, 28, 28)
    assert X_test.shape == (10_000, 1, 28, 28)
    assert {array.dtype for array in (X_train, Y_train, X_test, Y_test)} == {np.dtype(np.uint8)}
    train = [5923, 6742, 5958, 6131, 5842, 5421, 5918, 6265, 5851, 5949]
    test = [980, 1135, 1032, 1010, 982, 892, 958, 1028, 974, 1009]
    assert np.bincount(Y_train).tolist() == train
    assert np.bincount(Y_test).tolist() == test
