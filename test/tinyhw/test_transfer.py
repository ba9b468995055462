"""Arrays to and from a GPU: by its copy engine where that pays, over the bus where it must."""

from __future__ import annotations

import os
import threading

import numpy as np
import pytest

from compiler import nvrtc
from drivers import Buffer, HardwareError
from drivers.gpu import GpuDevice
from test.tinyhw.boards import AMD, NVIDIA
from tinyhw import Tensor
from tinyhw.device import Device
from tinyhw.nn.state import safe_load, safe_save
from tinyhw.transfer import bytes_of, copy_in, copy_out

LARGE = 5 << 20


@pytest.fixture(params=[("AMD", AMD), ("NV", NVIDIA)], ids=["AMD", "NV"])
def gpu(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    name, boards = request.param
    if os.environ.get(name) != "1" or "EMULATE" not in os.environ:
        monkeypatch.setenv("EMULATE", ",".join(boards))
    if name == "NV" and nvrtc.missing():
        pytest.skip(nvrtc.missing())
    return str(name)


def copies(device: str) -> int:
    """How much its copy queue has done."""
    return Device.runtime(device).copy_queue.last_point.value


@pytest.fixture
def refusals(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What GPUs have said of pages that they were not let reach."""
    said: list[str] = []
    asked = GpuDevice.host_buffer

    def ask(self: GpuDevice, address: int, size_bytes: int, owner: object) -> Buffer:
        try:
            return asked(self, address, size_bytes, owner)
        except HardwareError as error:
            said.append(f"{error} {self.system.log()[-3:]}")
            raise

    monkeypatch.setattr(GpuDevice, "host_buffer", ask)
    return said


def pattern(size: int, shift: int = 0) -> np.ndarray:
    """Bytes whose first lies `shift` behind a page's start."""
    memory = np.empty(size + 4096 + shift, np.uint8)
    start = -memory.ctypes.data % 4096 + shift
    memory[:] = np.arange(memory.size, dtype=np.uint32) % 251
    return memory[start : start + size]


@pytest.mark.parametrize("shift", [0, 1, 4095])
@pytest.mark.parametrize(("size", "inward", "outward"), [
    (100, 0, 0), (300_000, 0, 1), (LARGE, 1, 1), (LARGE + 77, 1, 1),
])
def test_every_byte_arrives_and_no_other_changes(gpu, size, inward, outward, shift):
    data = pattern(size, shift)
    buffer = Device[gpu].alloc(size + 10)
    buffer.cpu_view()[:] = b"\xee" * (size + 10)
    before = copies(gpu)
    copy_in(buffer, data)
    assert copies(gpu) == before + inward
    assert buffer.cpu_view()[:size] == data.data and buffer.cpu_view()[size:] == b"\xee" * 10
    found = np.full(size + 20, 0xDD, np.uint8)
    copy_out(buffer, found[10:-10])
    assert copies(gpu) == before + inward + outward
    np.testing.assert_array_equal(found[10:-10], data)
    assert set(found[:10]) == set(found[-10:]) == {0xDD}
    assert not Device[gpu].gpu_memory.pinned


def test_tensors_come_and_go_by_the_engine(gpu, refusals):
    data = np.arange(LARGE // 4, dtype=np.float32)
    before = copies(gpu)
    tensor = Tensor(data, device=gpu)
    data[:8] = -1  # the array is its owner's again
    doubled = tensor * 2
    np.testing.assert_array_equal(doubled.numpy(), np.arange(LARGE // 4) * 2)
    assert not refusals
    assert copies(gpu) == before + 2
    back = tensor.to("LLVM")
    assert back.numpy()[-1] == LARGE // 4 - 1
    np.testing.assert_array_equal((back + 1).to(gpu).numpy(), tensor.numpy() + 1)
    assert copies(gpu) == before + 6


@pytest.mark.parametrize("dtype", [np.bool_, np.int8, np.float16, np.int64])
def test_strided_and_read_only_arrays_of_every_width(gpu, dtype):
    data = (np.arange(1 << 20) % 3).astype(dtype).reshape(1024, 1024)
    data.flags.writeable = False
    for array in (data, data.T, data[::2, 1::3], data[:1, :1]):
        np.testing.assert_array_equal(Tensor(array, device=gpu).numpy(), array)


def test_what_a_gpu_cannot_reach_goes_over_the_bus(gpu, tmp_path):
    path = tmp_path / "data"
    pattern(LARGE).tofile(path)
    mapped = np.memmap(path, np.uint8, "r")
    before = copies(gpu)
    np.testing.assert_array_equal(Tensor(np.asarray(mapped), device=gpu)[:9].numpy(), mapped[:9])
    assert copies(gpu) == before


def test_threads_copy_the_same_array(gpu):
    data = np.arange(LARGE // 8, dtype=np.int64)
    wrong = []

    def go():
        for _ in range(3):
            buffer, found = Device[gpu].alloc(data.nbytes), np.empty_like(data)
            copy_in(buffer, bytes_of(data))
            copy_out(buffer, bytes_of(found))
            if not np.array_equal(found, data):
                wrong.append(found)

    threads = [threading.Thread(target=go) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(300)
    assert not wrong
    np.testing.assert_array_equal(data, np.arange(LARGE // 8))


def test_the_bytes_of_a_number_are_its_own():
    number = np.array(3.0)
    bytes_of(number)[:] = 0
    assert number == 0


def test_files_are_written_from_what_the_engine_has_brought(gpu, tmp_path, refusals):
    weights = {"w": Tensor(np.arange(1 << 18, dtype=np.float32), device=gpu)}
    before = copies(gpu)
    safe_save(weights, str(tmp_path / "w.safetensors"))
    assert bytes(weights["w"].data()[:2]) == np.array([0, 1], np.float32).tobytes()
    assert not refusals
    assert copies(gpu) == before + 2
    found = safe_load(str(tmp_path / "w.safetensors"))["w"]
    np.testing.assert_array_equal(found.numpy(), np.arange(1 << 18))
