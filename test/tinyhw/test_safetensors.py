"""The safetensors reader and writer: faithful to good files, one typed error for all others."""

from __future__ import annotations

import json
import math
import os
import stat
import tracemalloc
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from compiler.dtype import DType, dtypes
from drivers.errors import MalformedInput, SystemCallFailed
from tinyhw.formats.safetensors import (
    DTYPES,
    TensorView,
    header_limit,
    load,
    read_header,
    save,
)

NUMPY_TYPES = {
    name: np.dtype(d.name) for name, d in DTYPES.items() if d not in (dtypes.bfloat16, *dtypes.fp8s)
}
same_folder = settings(suppress_health_check=[HealthCheck.function_scoped_fixture])


def view(dtype: DType, shape: tuple[int, ...], data: bytes | None = None) -> TensorView:
    size_bytes = math.prod(shape) * dtype.itemsize
    return TensorView(dtype, shape, memoryview(bytes(size_bytes) if data is None else data))


def from_numpy(array: np.ndarray[Any, Any]) -> TensorView:
    return view(dtypes.from_name(array.dtype.name), array.shape, array.tobytes())


def write_raw(path: Path, header: object, data: bytes = b"") -> Path:
    """A file with any header: an object to be encoded, or the very bytes."""
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    path.write_bytes(len(text).to_bytes(8, "little") + text + data)
    return path


def entry(dtype: str, shape: object, begin: object, end: object) -> dict[str, object]:
    return {"dtype": dtype, "shape": shape, "data_offsets": [begin, end]}


def assert_same(loaded: Mapping[str, TensorView], saved: Mapping[str, TensorView]) -> None:
    assert loaded.keys() == saved.keys()
    for name, expected in saved.items():
        assert (loaded[name].dtype, loaded[name].shape) == (expected.dtype, expected.shape)
        assert bytes(loaded[name].data) == bytes(expected.data)


# --- good files ---------------------------------------------------------------------------------


@st.composite
def tensors(draw: st.DrawFn) -> dict[str, TensorView]:
    names = st.text(st.characters(exclude_categories=["Cs"]), max_size=12).filter(
        lambda name: name != "__metadata__"
    )
    found = {}
    for name in draw(st.lists(names, unique=True, max_size=6)):
        dtype = draw(st.sampled_from(list(DTYPES.values())))
        shape = tuple(draw(st.lists(st.integers(0, 4), max_size=4)))
        size_bytes = math.prod(shape) * dtype.itemsize
        data = draw(st.binary(min_size=size_bytes, max_size=size_bytes))
        found[name] = view(dtype, shape, data)
    return found


@same_folder
@given(tensors(), st.dictionaries(st.text(st.characters(exclude_categories=["Cs"])), st.just("v")))
def test_what_is_saved_is_loaded(
    tmp_path: Path, saved: dict[str, TensorView], metadata: dict[str, str]
) -> None:
    path = tmp_path / "model.safetensors"
    save(path, saved, metadata)
    assert_same(load(path), saved)
    assert read_header(path).metadata == metadata


@same_folder
@given(tensors())
def test_saving_is_reproducible_whatever_the_order(
    tmp_path: Path, saved: dict[str, TensorView]
) -> None:
    first, second = tmp_path / "first", tmp_path / "second"
    save(first, saved)
    save(second, dict(reversed(saved.items())))
    assert first.read_bytes() == second.read_bytes()


def test_tensors_are_aligned_to_their_elements(tmp_path: Path) -> None:
    path = tmp_path / "model.safetensors"
    save(path, {"a": view(dtypes.uint8, (3,)), "b": view(dtypes.float64, (2,))})
    for info in read_header(path).tensors.values():
        assert info.start % info.dtype.itemsize == 0


@pytest.mark.parametrize("name", NUMPY_TYPES)
def test_the_reference_package_reads_what_we_write(tmp_path: Path, name: str) -> None:
    reference = pytest.importorskip("safetensors.numpy")
    array = np.arange(24).reshape(2, 3, 4).astype(NUMPY_TYPES[name])
    path = tmp_path / "model.safetensors"
    save(path, {"w": from_numpy(array), "scalar": from_numpy(array[0, 0, 1])}, {"by": "tinyhw"})
    loaded = reference.load_file(path)
    np.testing.assert_array_equal(loaded["w"], array)
    np.testing.assert_array_equal(loaded["scalar"], array[0, 0, 1])


def test_we_read_what_the_reference_package_writes(tmp_path: Path) -> None:
    reference = pytest.importorskip("safetensors.numpy")
    arrays = {
        name: np.arange(24).reshape(4, 6).astype(dtype) for name, dtype in NUMPY_TYPES.items()
    }
    arrays["empty"] = np.zeros((0, 3), np.float32)
    path = tmp_path / "model.safetensors"
    reference.save_file(arrays, path, metadata={"format": "np"})
    assert_same(load(path), {name: from_numpy(array) for name, array in arrays.items()})
    assert read_header(path).metadata == {"format": "np"}


@same_folder
@given(tensors())
def test_our_bytes_are_the_reference_packages_bytes(
    tmp_path: Path, saved: dict[str, TensorView]
) -> None:
    reference = pytest.importorskip("safetensors")
    path = tmp_path / "model.safetensors"
    save(path, saved)
    theirs = reference.deserialize(path.read_bytes())
    assert {name: (tuple(tensor["shape"]), bytes(tensor["data"])) for name, tensor in theirs} == {
        name: (tensor.shape, bytes(tensor.data)) for name, tensor in saved.items()
    }


def test_loading_copies_nothing(tmp_path: Path) -> None:
    path = tmp_path / "model.safetensors"
    save(path, {"w": view(dtypes.float32, (4 << 20,))})
    tracemalloc.start()
    loaded = load(path)
    peak_bytes = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak_bytes < 1 << 20
    loaded["w"].data[:4] = b"mine"  # in this process only
    assert bytes(load(path)["w"].data[:4]) == bytes(4)


def test_views_outlive_the_file_and_its_dictionary(tmp_path: Path) -> None:
    path = tmp_path / "model.safetensors"
    save(path, {"w": view(dtypes.uint8, (3,), b"abc")})
    data = load(path)["w"].data
    path.unlink()
    assert bytes(data) == b"abc"


def test_saving_over_a_file_that_is_mapped_leaves_its_views_alone(tmp_path: Path) -> None:
    path = tmp_path / "model.safetensors"
    save(path, {"w": view(dtypes.uint8, (3,), b"old")})
    before = load(path)
    save(path, {"w": view(dtypes.uint8, (3,), b"new")})
    assert bytes(before["w"].data) == b"old"
    assert bytes(load(path)["w"].data) == b"new"
    assert os.listdir(tmp_path) == ["model.safetensors"]


def test_a_saved_file_has_the_users_usual_permissions(tmp_path: Path) -> None:
    path, plain = tmp_path / "model.safetensors", tmp_path / "plain"
    save(path, {})
    plain.touch()
    assert stat.S_IMODE(path.stat().st_mode) == stat.S_IMODE(plain.stat().st_mode)


# --- malformed files ----------------------------------------------------------------------------

F32x2 = entry("F32", [2], 0, 8)


@pytest.mark.parametrize(
    ("header", "data", "message"),
    [
        ({"w": F32x2}, b"", r"data_offsets has 8; it must be an integer from 0 to 0"),
        ({"w": F32x2}, bytes(9), r"tensors end at byte \d+; the file has \d+ bytes"),
        ({"w": entry("F32", [3], 0, 8)}, bytes(8), r"'w' claims 3 elements .* 12 .* hold 8"),
        ({"w": entry("F32", [1 << 60], 0, 8)}, bytes(8), r"'w' claims 1152921504606846976"),
        ({"w": entry("F32", [1 << 62] * 64, 0, 8)}, bytes(8), r"'w' claims \d+\.\.\.\d+ elem"),
        ({"w": entry("F32", [1] * 65, 0, 4)}, bytes(4), r"65 dimensions; the limit is 64"),
        ({"w": entry("F32", [1 << 64, 0], 0, 0)}, b"", r"shape has 18446744073709551616"),
        ({"w": entry("F32", [-2], 0, 8)}, bytes(8), r"'w': shape has -2"),
        ({"w": entry("F32", [2.0], 0, 8)}, bytes(8), r"'w': shape has 2.0"),
        ({"w": entry("F32", [True, 2], 0, 8)}, bytes(8), r"'w': shape has True"),
        ({"w": entry("F32", "2", 0, 8)}, bytes(8), r"'w': shape is '2'"),
        ({"w": entry("F32", [2], 8, 0)}, bytes(8), r"data_offsets \[8, 0\]"),
        ({"w": entry("F32", [2], -8, 0)}, bytes(8), r"data_offsets has -8"),
        ({"w": {**F32x2, "data_offsets": [0]}}, bytes(8), r"data_offsets \[0\]"),
        ({"w": {**F32x2, "data_offsets": [0, 8, 8]}}, bytes(8), r"data_offsets \[0, 8, 8\]"),
        ({"w": entry("F33", [2], 0, 8)}, bytes(8), r"dtype 'F33'; known are BOOL"),
        ({"w": {**F32x2, "dtype": ["F32"]}}, bytes(8), r"dtype \['F32'\]; known are"),
        ({"w": {"dtype": "F32", "shape": [2]}}, bytes(8), r"'w' has no data_offsets"),
        ({"w": 3}, b"", r"'w' is 3; it must be an object"),
        ({"\ud800": F32x2}, bytes(8), r"not valid Unicode"),
        ({"a": F32x2, "b": entry("F32", [2], 4, 12)}, bytes(12), r"'b' .* 4 .* overlaps .* 8"),
        ({"a": F32x2, "b": F32x2}, bytes(8), r"'b' .* overlaps"),
        ({"a": F32x2, "b": entry("F32", [2], 12, 20)}, bytes(20), r"'b' .* 12 .* gap, .* 8"),
        ({"__metadata__": {"a": 1}}, b"", r"__metadata__\['a'\] is 1"),
        ({"__metadata__": ["a"]}, b"", r"__metadata__ is \['a'\]"),
        (b'{"a": {}, "a": {}}', b"", r"'a' is there twice"),
        (b'{"__metadata__": {"x": "1", "x": "2"}}', b"", r"'x' is there twice"),
        (b'{"w": {"dtype": "F32", "dtype": "F32"}}', b"", r"'dtype' is there twice"),
        (b'{"a": "\xff"}', b"", r"not UTF-8 at its byte 7"),
        (b'{"a": ', b"", r"not valid JSON"),
        (b'{"a": ' + b"9" * 5000 + b"}", b"", r"not valid JSON"),
        (b'{"a": ' + b"[" * 100_000, b"", r"nests deeper"),
        (b'{"a": ' + b"[" * 900 + b"]" * 900 + b"}", b"", r"'a' is \[\[\["),
        (b"[]", b"", r"starts with b'\['"),
        (b"", b"", r"starts with b''"),
        (b' {"a": 1}', b"", r"starts with b' '"),
        (b'{"a": 1} x', b"", r"not valid JSON"),
    ],
)
def test_each_contradiction_is_named(
    tmp_path: Path, header: object, data: bytes, message: str
) -> None:
    path = write_raw(tmp_path / "model.safetensors", header, data)
    for read in (load, read_header):
        with pytest.raises(MalformedInput, match=message) as raised:
            read(path)
        assert str(raised.value).startswith(f"{path}: ")
        assert raised.value.code == "HW401"
        assert len(str(raised.value)) < 1000


@pytest.mark.parametrize("length", range(8))
def test_a_file_without_room_for_the_length_is_refused(tmp_path: Path, length: int) -> None:
    path = tmp_path / "model.safetensors"
    path.write_bytes(bytes(length))
    with pytest.raises(MalformedInput, match=f"ends after {length} bytes"):
        load(path)


@pytest.mark.parametrize("claimed", [3, 1 << 20, 1 << 31, (1 << 64) - 1])
def test_a_header_longer_than_the_file_is_refused(tmp_path: Path, claimed: int) -> None:
    path = tmp_path / "model.safetensors"
    path.write_bytes(claimed.to_bytes(8, "little") + b"{}")
    with pytest.raises(MalformedInput, match=f"claims {claimed} bytes.* 10 bytes .* at most 2"):
        load(path)


def test_every_truncation_of_a_good_file_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "model.safetensors"
    save(path, {"w": view(dtypes.float32, (2, 3)), "b": view(dtypes.bool, (3,))}, {"k": "v"})
    whole = path.read_bytes()
    for length in range(len(whole)):
        path.write_bytes(whole[:length])
        with pytest.raises(MalformedInput):
            load(path)


@pytest.mark.parametrize("filler", [b"{},", b"[],", b'"":0,', b"1e9,", '"\U0001f600",'.encode()])
def test_a_header_that_swells_stays_within_the_memory_promised(
    tmp_path: Path, filler: bytes
) -> None:
    # Twice the file and 64 MB, from the longest header that is looked at.
    longest = header_limit(2 << 20)
    opening = b'{"a": {' if filler == b'"":0,' else b'{"a": ['
    text = opening + filler * ((longest - len(opening)) // len(filler))
    path = write_raw(tmp_path / "model.safetensors", text[:longest])
    tracemalloc.start()
    with pytest.raises(MalformedInput):
        load(path)
    peak_bytes = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak_bytes < 2 * path.stat().st_size + (64 << 20)


@settings(max_examples=400, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_mutated_files_load_whole_or_are_refused(tmp_path: Path, data: st.DataObject) -> None:
    path = tmp_path / "model.safetensors"
    save(path, data.draw(tensors()), {"k": "v"})
    mutated = bytearray(path.read_bytes())
    header_end = 8 + int.from_bytes(mutated[:8], "little")
    for _ in range(data.draw(st.integers(1, 4))):
        at = data.draw(st.integers(0, min(header_end, len(mutated)) - 1))
        match data.draw(st.sampled_from(["set", "flip", "insert", "delete"])):
            case "set":
                mutated[at : at + 1] = data.draw(st.sampled_from([b"0", b"-", b"9", b'"', b"]"]))
            case "flip":
                mutated[at : at + 1] = bytes([mutated[at] ^ 1 << data.draw(st.integers(0, 7))])
            case "insert":
                mutated[at:at] = data.draw(st.sampled_from([b"0", b"[", b"{", b",", b"\x00"]))
            case "delete":
                del mutated[at : at + 1]
    path.write_bytes(mutated)
    try:
        loaded = load(path)
    except MalformedInput as error:
        assert str(path) in str(error)
        return
    assert sum(tensor.data.nbytes for tensor in loaded.values()) <= len(mutated)
    for tensor in loaded.values():
        assert tensor.data.nbytes == math.prod(tensor.shape) * tensor.dtype.itemsize


@settings(max_examples=200, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(junk=st.binary(max_size=200))
def test_junk_is_refused(tmp_path: Path, junk: bytes) -> None:
    path = tmp_path / "model.safetensors"
    path.write_bytes(len(junk).to_bytes(8, "little") + b"{" + junk)
    with pytest.raises(MalformedInput):
        load(path)


# --- what the operating system refuses, and what cannot be saved ---------------------------------


def test_a_missing_file_is_one_sentence(tmp_path: Path) -> None:
    for read in (load, read_header):
        with pytest.raises(SystemCallFailed, match=r"Cannot read .*absent \(ENOENT: No such"):
            read(tmp_path / "absent")


def test_a_pipe_is_refused_rather_than_waited_for(tmp_path: Path) -> None:
    path = tmp_path / "pipe"
    os.mkfifo(path)
    for read in (load, read_header):
        with pytest.raises(MalformedInput, match="not a regular file"):
            read(path)


def test_saving_where_there_is_no_folder_is_one_sentence(tmp_path: Path) -> None:
    with pytest.raises(SystemCallFailed, match=r"Cannot write .* \(ENOENT"):
        save(tmp_path / "absent" / "model.safetensors", {})


@pytest.mark.parametrize(
    ("saved", "metadata", "message"),
    [
        ({"w": view(dtypes.float32, (3,), bytes(8))}, None, r"'w' of shape \(3,\) needs 12 .* 8"),
        ({"w": view(dtypes.float32, (-1, -2), bytes(8))}, None, r"with a negative extent"),
        ({"__metadata__": view(dtypes.bool, ())}, None, r"name of the metadata"),
        ({"w": view(dtypes.index, (1,))}, None, r"dtypes.index; known are BOOL"),
        ({"\ud800": view(dtypes.bool, ())}, None, r"not valid Unicode"),
        ({}, {"k": 3}, r"\['k'\] is 3; it must be a string"),
        ({}, {"k": "\ud800"}, r"not valid Unicode"),
    ],
)
def test_what_would_not_load_again_is_not_saved(
    tmp_path: Path, saved: dict[str, TensorView], metadata: dict[str, str] | None, message: str
) -> None:
    path = tmp_path / "model.safetensors"
    path.write_text("precious")
    with pytest.raises(MalformedInput, match=message):
        save(path, saved, metadata)
    assert path.read_text() == "precious"
    assert os.listdir(tmp_path) == ["model.safetensors"]


def test_a_strided_view_is_not_saved_as_something_else(tmp_path: Path) -> None:
    strided = TensorView(dtypes.uint8, (2,), memoryview(b"abcd")[::2])
    with pytest.raises(MalformedInput, match="contiguous"):
        save(tmp_path / "model.safetensors", {"w": strided})
