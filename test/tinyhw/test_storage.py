"""Memory under BUFFER nodes: contents, copies, and when it goes back."""

from __future__ import annotations

import gc

import numpy as np
import pytest

from compiler.dtype import dtypes
from compiler.ir import Op
from tinyhw import storage
from tinyhw.device import Device
from tinyhw.errors import DtypeError, JitError, TensorError


@pytest.mark.parametrize("dtype", dtypes.all, ids=lambda d: d.name)
def test_what_is_stored_is_read_back(dtype):
    numpy_type = storage.NUMPY_TYPES[dtype]
    array = np.arange(12).astype(numpy_type).reshape(3, 4)
    node = storage.from_numpy(array, dtype, "LLVM")
    assert node.arg.size == 12 and node.dtype is dtype
    assert bytes(storage.read(node)) == array.tobytes()


def test_any_layout_is_stored_in_row_major_order():
    array = np.arange(24, dtype=np.int32).reshape(2, 3, 4).transpose(2, 0, 1)[::-1]
    assert bytes(storage.read(storage.from_numpy(array, dtypes.int32, "LLVM"))) == array.tobytes()


def test_changing_the_array_afterwards_changes_nothing():
    array = np.ones(4, np.float32)
    node = storage.from_numpy(array, dtypes.float32, "LLVM")
    array[:] = 5
    assert np.frombuffer(storage.read(node), np.float32).tolist() == [1, 1, 1, 1]


def test_bytes_are_stored_as_elements():
    node = storage.from_bytes(b"\x01\x00\x02\x00", dtypes.uint16, "LLVM")
    assert np.frombuffer(storage.read(node), np.uint16).tolist() == [1, 2]
    with pytest.raises(DtypeError, match="3 bytes are no whole number"):
        storage.from_bytes(b"abc", dtypes.uint16)


def test_an_array_of_another_width_is_an_error():
    with pytest.raises(DtypeError, match=r"8 bytes an element, but .*float32 has 4"):
        storage.from_numpy(np.zeros(3), dtypes.float32)


def test_empty_storage_exists():
    node = storage.from_numpy(np.zeros((0, 3), np.float32), dtypes.float32, "LLVM")
    assert len(storage.read(node)) == 0


def test_memory_goes_back_when_nothing_names_it():
    device = Device["LLVM"]
    gc.collect()
    device.synchronize()
    before = device.memory_used
    node = storage.allocate(dtypes.float32, 1 << 20, "LLVM")
    assert device.memory_used >= before + (4 << 20)
    del node
    assert device.memory_used == before


def test_a_view_keeps_the_memory():
    node = storage.from_numpy(np.full(1 << 16, 7, np.uint8), dtypes.uint8, "LLVM")
    view = storage.read(node)
    del node
    for _ in range(4):
        storage.from_numpy(np.zeros(1 << 16, np.uint8), dtypes.uint8, "LLVM")
    assert bytes(view) == b"\x07" * (1 << 16)


def test_only_storage_can_be_read():
    x = storage.allocate(dtypes.int32, 4, "LLVM")
    with pytest.raises(TensorError, match="this node is ADD"):
        storage.read(x.alu(Op.ADD, x))


def test_reading_is_refused_while_it_is_forbidden(monkeypatch):
    node = storage.allocate(dtypes.int32, 4, "LLVM")
    monkeypatch.setattr(storage.ReadGuard, "forbidden", True)
    with pytest.raises(JitError, match="read while TinyJit captures"):
        storage.read(node)
