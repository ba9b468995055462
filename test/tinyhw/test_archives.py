"""Members of tar and ZIP files as tensors: what Python's modules write, and damaged files."""

from __future__ import annotations

import io
import random
import tarfile
import zipfile
from pathlib import Path

import numpy as np
import pytest

from drivers.errors import MalformedInput
from tinyhw import Tensor
from tinyhw.errors import DtypeError
from tinyhw.nn.state import tar_extract, zip_extract

FILES = {"a.txt": b"hello", "folder/b.bin": bytes(range(256)) * 5, "empty": b"",
         "n" * 150: b"a long name"}  # fmt: skip


def tar_bytes() -> bytes:
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w") as archive:
        archive.addfile(tarfile.TarInfo("folder"))
        link = tarfile.TarInfo("link")
        link.type, link.linkname = tarfile.SYMTYPE, "/etc/passwd"
        archive.addfile(link)
        for name, data in FILES.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))
    return stream.getvalue()


def zip_bytes(method: int = zipfile.ZIP_STORED) -> bytes:
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w", method) as archive:
        for name, data in FILES.items():
            archive.writestr(name, data)
    return stream.getvalue()


def test_a_tar_file_of_a_path_and_of_a_tensor(tmp_path: Path) -> None:
    path = tmp_path / "x.tar"
    path.write_bytes(tar_bytes())
    for found in (tar_extract(path), tar_extract(Tensor(tar_bytes()))):
        assert found.pop("folder").shape == (0,)  # written as a file without bytes
        assert {name: t.numpy().tobytes() for name, t in found.items()} == FILES


def test_a_zip_file_of_a_path_and_of_a_tensor(tmp_path: Path) -> None:
    path = tmp_path / "x.zip"
    path.write_bytes(zip_bytes())
    for found in (zip_extract(str(path)), zip_extract(Tensor(zip_bytes()))):
        assert {name: t.numpy().tobytes() for name, t in found.items()} == FILES
    with pytest.raises(MalformedInput, match="compressed"):
        zip_extract(Tensor(zip_bytes(zipfile.ZIP_DEFLATED)))


def test_damaged_files_are_refused_or_read(tmp_path: Path) -> None:
    chance = random.Random(5)
    refused = 0
    for extract, good in ((tar_extract, tar_bytes()), (zip_extract, zip_bytes())):
        for _ in range(150):
            data = bytearray(good)
            for _ in range(chance.randrange(1, 8)):
                data[chance.randrange(len(data))] = chance.randrange(256)
            cut = data[: chance.randrange(1, len(data))] if chance.random() < 0.3 else data
            try:
                extract(Tensor(np.frombuffer(bytes(cut), np.uint8)))
            except MalformedInput as error:
                refused += 1
                assert "a tensor's bytes" in str(error)
    assert refused > 20
    with pytest.raises(MalformedInput, match="no tar file"):
        tar_extract(Tensor(b"nonsense" * 100))
    with pytest.raises(DtypeError, match="vector of uint8"):
        tar_extract(Tensor([1.0, 2.0]))
