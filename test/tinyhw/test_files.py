"""Tensors of mapped files: what is read and when, what is written, and arrays with a buffer."""

from __future__ import annotations

import array
import gc
import os
from pathlib import Path

import numpy as np
import pytest

from drivers.errors import MalformedInput, SystemCallFailed
from tinyhw import Device, Tensor, dtypes
from tinyhw.errors import DtypeError
from tinyhw.nn.state import safe_load, safe_save


def resident_bytes(path: Path) -> int:
    """How much of a mapped file is in this process's memory."""
    found, inside = 0, False
    for line in Path("/proc/self/smaps").read_text().splitlines():
        if line[0] in "0123456789abcdef" and "-" in line.split()[0]:
            inside = line.endswith(str(path))
        elif inside and line.startswith("Rss:"):
            found += int(line.split()[1]) * 1024
    return found


def test_a_path_is_the_bytes_of_the_file(tmp_path: Path) -> None:
    path = tmp_path / "data"
    path.write_bytes(np.arange(10, dtype=np.float32).tobytes())
    tensor = Tensor(path)
    assert (tensor.shape, tensor.dtype) == ((40,), dtypes.uint8)
    assert Device.is_processor(tensor.device)
    assert Tensor(path, dtype=dtypes.float32)[3:5].tolist() == [3, 4]
    assert Tensor(path, Device.DEFAULT, "float32").sum().item() == 45
    with pytest.raises(DtypeError, match=r"The 41 bytes of .*data are no whole number"):
        path.write_bytes(bytes(41))
        Tensor(path, dtype=dtypes.float32)
    path.write_bytes(b"")
    assert Tensor(path).shape == (0,)


def test_a_slice_of_a_file_larger_than_memory_is_read_alone(tmp_path: Path) -> None:
    path = tmp_path / "data"
    with path.open("wb") as file:
        file.truncate(1 << 38)
        file.seek((1 << 37) + 100)
        file.write(b"needle")
    tensor = Tensor(path)
    found = tensor[(1 << 37) + 100 : (1 << 37) + 106]
    assert bytes(found.data()) == b"needle"
    assert bytes(found.to(Device.DEFAULT).data()) == b"needle"
    assert resident_bytes(path) < 1 << 20
    del tensor, found
    gc.collect()
    assert str(path) not in Path("/proc/self/maps").read_text()


def test_only_tensors_that_are_used_are_read(tmp_path: Path) -> None:
    path = tmp_path / "model.safetensors"
    size = 1 << 20
    safe_save({f"w{i}": Tensor.full((size,), float(i)) for i in range(4)}, path)
    found = safe_load(path)
    assert (found["w2"] + 1)[0].item() == 3
    gc.collect()
    assert resident_bytes(path) <= 5 * size
    assert found["w3"][size - 1].item() == 3 and found["w0"].device == Device.DEFAULT


def test_writes_reach_the_tensor_and_not_the_file(tmp_path: Path) -> None:
    path = tmp_path / "model.safetensors"
    safe_save({"w": Tensor([1.0, 2.0]), "b": Tensor([3, 4, 5], dtype="uint8")}, path)
    before = path.read_bytes()
    found = safe_load(path)
    found["w"].assign(found["w"] * 2).realize()
    found["b"][1] = 9
    assert found["w"].tolist() == [2, 4] and found["b"].tolist() == [3, 9, 5]
    safe_save(found, path)  # onto the file that is mapped
    assert safe_load(path)["w"].tolist() == [2, 4] and path.read_bytes() != before


def test_tensors_that_lie_askew_are_read(tmp_path: Path) -> None:
    """The format lets an element lie anywhere; ours are aligned, so this is written by hand."""
    header = (
        b'{"a":{"dtype":"U8","shape":[1],"data_offsets":[0,1]},'
        b'"b":{"dtype":"F32","shape":[2],"data_offsets":[1,9]}}'
    )
    path = tmp_path / "model.safetensors"
    values = b"\x07" + np.float32([1.5, 2.5]).tobytes()
    path.write_bytes(len(header).to_bytes(8, "little") + header + values)
    found = safe_load(path)
    assert found["a"].tolist() == [7] and found["b"].tolist() == [1.5, 2.5]


def test_an_empty_tensor_comes_back(tmp_path: Path) -> None:
    safe_save({"w": Tensor.zeros(0, 3, dtype="int32")}, tmp_path / "f")
    found = safe_load(tmp_path / "f")["w"]
    assert found.shape == (0, 3) and found.dtype is dtypes.int32


def test_paths_that_cannot_be_mapped_are_one_sentence(tmp_path: Path) -> None:
    with pytest.raises(SystemCallFailed, match=r"Cannot read .*absent \(ENOENT"):
        Tensor(tmp_path / "absent")
    with pytest.raises(MalformedInput, match="not a regular file"):
        Tensor(tmp_path)
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(MalformedInput, match="not a regular file"):
        Tensor(tmp_path / "pipe")


# ---- arrays with a buffer ----


def test_buffers_give_their_elements() -> None:
    tensor = Tensor(array.array("d", [1.5, 2.5]))
    assert tensor.dtype is dtypes.float64 and tensor.tolist() == [1.5, 2.5]
    again = Tensor(Tensor([[1, 2], [3, 4]], dtype="int16").data())
    assert again.dtype is dtypes.int16 and again.tolist() == [[1, 2], [3, 4]]
    assert Tensor(memoryview(b"abcd")[::2]).tolist() == [97, 99]
    assert Tensor(np.array([1, 2], ">i4")).tolist() == [1, 2]
    assert Tensor(np.float32(2)).tolist() == 2
    assert Tensor(array.array("i", [])).shape == (0,)
    for wrong in (object(), {1: 2}, memoryview(b"ab").cast("c")):
        with pytest.raises(DtypeError, match=r"made of a number|no tensor type|no tensor has"):
            Tensor(wrong)  # type: ignore[arg-type]


def test_a_tensor_is_made_of_torchs_by_copying() -> None:
    torch = pytest.importorskip("torch")
    theirs = torch.tensor([1.0, 2.0], dtype=torch.bfloat16)
    ours = Tensor(theirs)
    theirs[0] = 9
    assert (ours.dtype, ours.device) == (dtypes.bfloat16, Device.DEFAULT)
    assert ours.tolist() == [1, 2] and Tensor(theirs, dtype="float32").tolist() == [9, 2]
