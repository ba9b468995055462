"""Files of torch.save: what torch wrote comes back, and what nobody should write is refused."""

from __future__ import annotations

import io
import os
import pickle
import struct
import tracemalloc
import zipfile
from collections import OrderedDict
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from drivers.errors import MalformedInput, SystemCallFailed
from tinyhw import Device, Tensor, dtypes
from tinyhw.nn.state import torch_load

EXAMPLES = 2000 if os.environ.get("TINYHW_FULL") else 150


def written(value: Any, **options: Any) -> bytes:
    torch = pytest.importorskip("torch")
    stream = io.BytesIO()
    torch.save(value, stream, **options)
    return stream.getvalue()


@pytest.mark.parametrize("zipped", [True, False], ids=["zip", "legacy"])
def test_everything_that_torch_writes_comes_back(tmp_path: Path, zipped: bool) -> None:
    torch = pytest.importorskip("torch")
    base = torch.arange(24.0).reshape(4, 6)
    kinds = [d for d in dtypes.all if d.kind != "u" or d is dtypes.uint8 or zipped]
    theirs = {
        "base": base,
        "view": base.T[1::2, 1:],
        "expanded": torch.arange(3).expand(2, 3),
        "scalar": torch.tensor(2.5),
        "empty": torch.zeros(0, 3, dtype=torch.int16),
        "parameter": torch.nn.Parameter(torch.ones(2)),
        "state": torch.nn.Linear(2, 3).state_dict(),
        "kinds": {d.name: torch.tensor([[0, 1], [1, 0]]).to(getattr(torch, d.name)) for d in kinds},
        "plain": [1, -(1 << 40), 1 << 70, 2.5, None, True, "\N{SNOWMAN}", b"\xff\0", (1, (2,)),
                  {3: 4}, {5, 6}, torch.Size([1, 2]), torch.device("cpu"), torch.float16],
    }
    path = tmp_path / "model.pth"
    path.write_bytes(written(theirs, _use_new_zipfile_serialization=zipped))
    ours = torch_load(path)
    for name in ("base", "view", "expanded", "scalar", "empty", "parameter"):
        assert ours[name].shape == tuple(theirs[name].shape), name
        assert ours[name].tolist() == theirs[name].tolist(), name
    assert ours["empty"].dtype is dtypes.int16 and ours["base"].device == Device.DEFAULT
    assert list(ours["state"]) == ["weight", "bias"] and type(ours["state"]) is OrderedDict
    assert ours["state"]["weight"].tolist() == theirs["state"]["weight"].tolist()
    for dtype in kinds:
        found = ours["kinds"][dtype.name]
        assert found.dtype is dtype and found.float().tolist() == [[0, 1], [1, 0]]
    assert ours["plain"][:11] == theirs["plain"][:11]
    assert ours["plain"][11:13] == [(1, 2), "cpu"]


def test_tensors_of_one_storage_share_it(tmp_path: Path) -> None:
    torch = pytest.importorskip("torch")
    base = torch.arange(6.0)
    path = tmp_path / "model.pth"
    path.write_bytes(written({"a": base[:4].reshape(2, 2), "b": base[2:]}))
    ours = torch_load(path)
    ours["a"][1, 0] = 99
    assert ours["b"].tolist() == [99, 3, 4, 5]
    assert torch.load(path)["b"].tolist() == [2, 3, 4, 5]


def test_a_file_is_read_where_it_is_used(tmp_path: Path) -> None:
    torch = pytest.importorskip("torch")
    path = tmp_path / "model.pth"
    path.write_bytes(written({f"w{i}": torch.full((1 << 20,), float(i)) for i in range(8)}))
    torch_load(path)  # imports
    tracemalloc.start()
    ours = torch_load(path, "LLVM")
    assert ours["w5"][7].item() == 5
    peak_bytes = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak_bytes < 8 << 20
    assert np.from_dlpack(ours["w3"].contiguous())[-1] == 3


@pytest.mark.parametrize("protocol", [2, 3, 4, 5])
def test_newer_protocols_are_read(tmp_path: Path, protocol: int) -> None:
    torch = pytest.importorskip("torch")
    path = tmp_path / "model.pth"
    value = {"w": torch.ones(3), "n": {"deep": [1, "x" * 300, b"y" * 300]}, "k": {1, 2}}
    path.write_bytes(written(value, pickle_protocol=protocol))
    ours = torch_load(path)
    assert ours["w"].tolist() == [1, 1, 1] and ours["n"] == value["n"] and ours["k"] == {1, 2}


# ---- files that nobody should write ----


def archive(content: bytes, storages: dict[str, bytes] | None = None, **options: Any) -> bytes:
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w", options.get("compression", zipfile.ZIP_STORED)) as file:
        file.writestr("model/data.pkl", content)
        file.writestr("model/byteorder", options.get("byteorder", "little"))
        for key, data in (storages or {}).items():
            file.writestr(f"model/data/{key}", data)
    return stream.getvalue()


def tensor_pickle(offset: int, shape: Any, strides: Any, count: int = 6) -> bytes:
    """{"conv.weight": a float tensor}, in opcodes."""
    def plain(value: Any) -> bytes:
        return pickle.dumps(value, 2)[2:-1]  # without PROTO and STOP

    storage = b"(X\x07\0\0\0storagectorch\nFloatStorage\nX\1\0\0\0" b"0X\3\0\0\0cpu"
    storage += plain(count) + b"tQ"
    arguments = b"(" + storage + plain(offset) + plain(shape) + plain(strides) + b"\x89}t"
    tensor = b"ctorch._utils\n_rebuild_tensor_v2\n" + arguments + b"R"
    return b"\x80\2}X\x0b\0\0\0conv.weight" + tensor + b"s."


def refused(tmp_path: Path, content: bytes, message: str) -> None:
    path = tmp_path / "model.pth"
    path.write_bytes(content)
    with pytest.raises(MalformedInput, match=message) as caught:
        torch_load(path)
    assert str(path) in str(caught.value)


def test_a_tensor_in_opcodes_is_read(tmp_path: Path) -> None:
    path = tmp_path / "model.pth"
    data = np.arange(6, dtype=np.float32).tobytes()
    path.write_bytes(archive(tensor_pickle(1, (2, 2), (2, 1)), {"0": data}))
    assert torch_load(path)["conv.weight"].tolist() == [[1, 2], [3, 4]]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((0, (3, 3), (3, 1)), r"'conv.weight'.*reaches element 8 of a storage of 6"),
        ((-1, (2,), (1,)), r"'conv.weight'.*offset -1"),
        ((0, (2,), (1, 1)), r"'conv.weight'.*strides \(1, 1\)"),
        ((0, (1 << 62, 1 << 62), (0, 0)), r"'conv.weight'.*the limit for a file of its size"),
        ((0, (1,) * 65, (1,) * 65), r"'conv.weight'.*65 axes; the limit is 64"),
        ((0, [2], (1,)), r"'conv.weight'.*shape \[2\]"),
        ((0, (2,), (1,), 1000), r"storage '0' needs 4000 bytes and has 24"),
        ((0, (2,), (1,), -1), r"a storage is described as"),
    ],
)
def test_a_tensor_that_cannot_be_is_named(
    tmp_path: Path, arguments: tuple[Any, ...], message: str
) -> None:
    refused(tmp_path, archive(tensor_pickle(*arguments), {"0": bytes(24)}), message)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"cos\nsystem\n(X\4\0\0\0truetR.", r"asks for os.system; only tensors"),
        (b"cbuiltins\neval\n.", r"asks for builtins.eval"),
        (b"\x8c\2os\x8c\6system\x93.", r"asks for os.system"),
        (b"ctorch\nFloatStorage\n)R.", r"no function that is accepted"),
        (b"K\1)R.", r"calls 1, which is no function"),
        (b"ccollections\nOrderedDict\n(K\1tR.", r"an OrderedDict is made of"),
        (b"ctorch._utils\n_rebuild_tensor_v2\n)R.", r"calls torch._utils._rebuild_tensor_v2 wrong"),
        (b"c_codecs\nencode\n(X\1\0\0\0aX\4\0\0\0hex_tR.", r"_codecs.encode"),
        (b"}]K\1s.", r"the key \[\]"),
        (b"}" + b")" + b"\x85" * 50 + b"K\1s.", r"the key"),
        (b"(K\1d.", r"a key without a value"),
        (b"K\1K\2a.", r"it adds to 1, which is no list"),
        (b"h\7.", r"recalls object 7"),
        (b"\x80\7.", r"protocol 7"),
        (b"i", r"no opcode that is read"),
        (b"\x85.", r"too little on the stack"),
        (b".", r"too little"),
        (b"X\xff\xff\xff\xff", r"ends at byte 5"),
        (b"\x8e" + b"\xff" * 8, r"ends at byte 9"),
        (b"X\2\0\0\0\xff\xff.", r"not UTF-8"),
        (b"K\1", r"ends at byte 2"),
        (b"Iseven\n.", r"for a number"),
        (b"}Nb.", r"it adds to"),
        (b"]" * 500_000, r"would build more than \d+ bytes"),
        (b"\x8f" * 500_000, r"would build more than \d+ bytes"),
        (b"(" + b"N" * 50_000 + b"tq\0" + b"ctorch\nSize\nq\1" + b"h\1h\0\x85R" * 1000,
         r"would build more than \d+ bytes"),
        (b"ctorch._tensor\n_rebuild_from_type_v2\nq\0(h\0N)NtR.", r"made of another such tensor"),
        (b"]2" + b"2" * 500_000, r"would build more than \d+ bytes"),
    ],
)
def test_pickles_that_are_not_data_are_refused(
    tmp_path: Path, content: bytes, message: str
) -> None:
    tracemalloc.start()
    refused(tmp_path, archive(content), message)
    peak_bytes = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak_bytes < 2 * len(content) + (64 << 20)


def test_deep_nesting_is_no_crash(tmp_path: Path) -> None:
    path = tmp_path / "model.pth"
    path.write_bytes(archive(b")" + b"\x85" * 100_000 + b"."))
    assert type(torch_load(path)) is tuple


def test_archives_that_are_not_torchs_are_refused(tmp_path: Path) -> None:
    whole = archive(tensor_pickle(0, (2,), (1,)), {"0": bytes(24)})
    refused(tmp_path, whole[:-30], "no end record|it may be cut off|directory")
    refused(tmp_path, whole.replace(b"data.pkl", b"data.pck"), "0 members data.pkl")
    refused(tmp_path, archive(b"N.", byteorder="big"), "byte order b'big'")
    squeezed = archive(bytes(1000), compression=zipfile.ZIP_DEFLATED)
    refused(tmp_path, squeezed, "compressed or encrypted")
    missing = archive(tensor_pickle(0, (2,), (1,)))
    refused(tmp_path, missing, "storage '0' needs 24 bytes and is not there")
    refused(tmp_path, b"", "ends at byte 0")
    refused(tmp_path, bytes(100), "no opcode")
    refused(tmp_path, b"\x80\2K\1.", "magic number is 1")
    with pytest.raises(SystemCallFailed, match="ENOENT"):
        torch_load(tmp_path / "absent")


def test_old_files_that_contradict_themselves_are_refused(tmp_path: Path) -> None:
    torch = pytest.importorskip("torch")
    whole = written({"w": torch.arange(6.0)}, _use_new_zipfile_serialization=False)
    refused(tmp_path, whole[:-1], "6 elements at byte .* goes beyond")
    more = whole.replace(struct.pack("<q", 6) + np.float32(0).tobytes(),
                         struct.pack("<q", 1 << 60) + np.float32(0).tobytes())
    refused(tmp_path, more, "goes beyond")
    fewer = whole.replace(struct.pack("<q", 6) + np.float32(0).tobytes(),
                          struct.pack("<q", 5) + np.float32(0).tobytes())
    refused(tmp_path, fewer, "storage '.*' of 24 bytes is not among")


@settings(max_examples=EXAMPLES, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data(), zipped=st.booleans())
def test_mutated_files_load_or_are_refused(
    tmp_path: Path, data: st.DataObject, zipped: bool
) -> None:
    """Real files with some bytes changed: an error of ours that names the file, or tensors."""
    torch = pytest.importorskip("torch")
    model = {"a": torch.arange(6.0).reshape(2, 3).T, "b": torch.ones(2, dtype=torch.bfloat16),
             "c": [1, "two", (3.0, None)]}
    mutated = bytearray(written(model, _use_new_zipfile_serialization=zipped))
    for _ in range(data.draw(st.integers(1, 4))):
        at = data.draw(st.integers(0, max(len(mutated) - 1, 1)))
        match data.draw(st.sampled_from(["byte", "bit", "cut", "insert", "delete"])):
            case "byte":
                mutated[at : at + 1] = bytes([data.draw(st.integers(0, 255))])
            case "bit":
                bit = 1 << data.draw(st.integers(0, 7))
                mutated[at : at + 1] = bytes([byte ^ bit for byte in mutated[at : at + 1]])
            case "cut":
                del mutated[max(at, 1) :]
            case "insert":
                mutated[at:at] = data.draw(st.sampled_from([b"\0", b"(", b"t", b"R", b"]", b"."]))
            case "delete":
                del mutated[at : at + 1]
    path = tmp_path / "model.pth"
    path.write_bytes(mutated)
    try:
        loaded = torch_load(path)
    except MalformedInput as error:
        assert str(path) in str(error)
        return
    for value in loaded.values() if isinstance(loaded, dict) else ():
        if isinstance(value, Tensor):
            assert value.numel() <= (1 << 25)
