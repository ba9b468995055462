"""What goes wrong with an NVIDIA GPU, and what a user is told: on an emulated board."""

from __future__ import annotations

import errno
import gc
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from compiler import nvrtc
from drivers import open_device
from drivers.emulated.system import EmulatedSystem
from drivers.errors import (
    DeviceFault,
    DeviceHang,
    DeviceNotAvailable,
    HardwareError,
    NodeNotAccessible,
    OutOfDeviceMemory,
)
from drivers.system import RealSystem, StackedSystem
from test.drivers import kernels

COMPILES = pytest.mark.skipif(bool(nvrtc.missing()), reason=nvrtc.missing() or "-")
NODES = ("/dev/nvidiactl", "/dev/nvidia0", "/dev/nvidia-uvm")


@pytest.fixture(scope="module")
def board():
    system = EmulatedSystem("sm_90")
    open_device("NV", system=system).close()  # sockets to the board stay
    yield system
    system.shut_down()


class Blocked(StackedSystem):
    """A node that does not open, and a kernel with these modules."""

    def __init__(self, lower, path: str, number: int, modules: str = "") -> None:
        super().__init__(lower)
        self.path, self.number, self.modules = path, number, modules

    def open(self, path: str, flags: int) -> int:
        if path == self.path:
            raise OSError(self.number, path)
        if path == "/proc/modules":
            descriptor = os.memfd_create("modules")
            os.write(descriptor, "".join(
                f"{name} 65536 0 - Live 0x0000000000000000\n" for name in self.modules.split()
            ).encode())  # fmt: skip
            os.lseek(descriptor, 0, os.SEEK_SET)
            return descriptor
        return super().open(path, flags)


@pytest.mark.parametrize(
    ("modules", "found", "remedy"),
    [
        ("snd nouveau i2c_core", "nouveau", r"nouveau holds the GPU: .*blacklist=nouveau"),
        ("nova_core", "nova_core", r"nova_core holds the GPU"),
        ("nvidia_modeset nvidia", "nvidia", r"sudo nvidia-modprobe -c 0 -u`, in a container"),
        ("amdgpu ext4", "amdgpu", r"Load NVIDIA's kernel modules"),
        ("ext4", "none", r"Load NVIDIA's kernel modules .* /dev/nvidiactl, /dev/nvidia0"),
    ],
)
def test_an_absent_driver_is_told_with_what_holds_the_gpu(modules, found, remedy) -> None:
    system = Blocked(RealSystem(), NODES[0], errno.ENOENT, modules)
    said = rf"/dev/nvidiactl does not exist; loaded graphics modules: {found}\. .*{remedy}"
    with pytest.raises(DeviceNotAvailable, match=said) as caught:
        open_device("NV", system=system)
    assert caught.value.code == "HW102" and "EMULATE=1" in caught.value.remedy


@pytest.mark.parametrize("path", NODES)
@pytest.mark.parametrize(
    ("number", "kind", "sentence"),
    [
        (errno.ENOENT, DeviceNotAvailable, "{} does not exist; .* in a container give it {} too"),
        (errno.EACCES, NodeNotAccessible, r"Cannot open {} \(EACCES\)"),
        (errno.EPERM, NodeNotAccessible, r"Cannot open {} \(EPERM\)"),
    ],
)
def test_each_node_that_is_refused_is_named_and_nothing_stays_open(
    board, path, number, kind, sentence
) -> None:
    keep = os.open("/dev/null", os.O_RDONLY)
    before = len(os.listdir("/proc/self/fd"))
    with pytest.raises(kind, match=sentence.replace("{}", re.escape(path))) as caught:
        open_device("NV", system=Blocked(board, path, number, "nvidia nvidia_uvm"))
    assert caught.value.code == ("HW102" if number == errno.ENOENT else "HW101")
    assert caught.value.device.startswith("NV")
    del caught
    gc.collect()  # the System that the error's traceback leads to keeps the nodes
    assert len(os.listdir("/proc/self/fd")) == before
    os.close(keep)


def test_memory_that_runs_out_is_told_and_comes_back(board) -> None:
    with open_device("NV", system=board) as device:
        total, free = device.gpu.memory_bytes()
        held = []
        with pytest.raises(OutOfDeviceMemory) as caught:
            while True:
                held.append(device.alloc(16 << 30))
        assert caught.value.code == "HW203" and len(held) == 4
        assert re.match(
            r"Cannot allocate 16\.0 GiB on NV:0: 1\d\.\d GiB of 79\.6 GiB free, the largest piece "
            r"held is 16\.0 GiB, 64\.0 GiB in use", str(caught.value),
        )  # fmt: skip
        del held
        device.trim()
        assert device.gpu.memory_bytes() == (total, free)
        device.alloc(16 << 30)


def test_a_hang_is_told_with_the_queues_state(board) -> None:
    with open_device("NV", system=board, timeout_ms=30) as device:
        gate, word = device.timeline("gate"), device.alloc(8)
        queue = device.compute_queue("deaf")
        point = queue.commands().wait(gate.point(2)).write(word, 1).submit()
        with pytest.raises(DeviceHang) as caught:
            point.wait()
        assert caught.value.code == "HW202"
        for part in ("NV:0 queue deaf did not reach 1 within 0.03 s", "timeline gate to reach 2",
                     "(it is at 0)", "timeline 0 of 1", "read pointer 0x3", "write pointer 0x4",
                     "no fault recorded"):  # fmt: skip
            assert part in str(caught.value)
        gate.signal(2)
        point.wait(timeout_ms=5000)


@COMPILES
def test_a_page_fault_names_the_kernel_and_the_buffer_and_a_new_channel_works(board) -> None:
    with open_device("NV", system=board) as device, open_device("NV", system=board) as other:
        program = device.load(kernels.add_number(device.target))
        data, memory = device.alloc(64), device.gpu_memory
        commands = device.compute_queue().commands().exec(program, (data, data, 1))
        memory.unreach(memory.nearest(program.address)[0])  # behind the device's back
        said = (
            rf"NV:0 read {program.address:#x} \(page not present\) in kernel add_number, "
            r"dispatch 1; \d+ bytes (before|past) buffer out of add_number \(64 bytes at "
        )
        with pytest.raises(DeviceFault, match=said) as caught:
            commands.submit().wait()
        assert caught.value.code == "HW201" and "Close the device and open it" in str(caught.value)
        with pytest.raises(DeviceFault, match="dispatch 1"):
            device.compute_queue()
        # The group of another device lives on.
        word = other.alloc(8)
        other.compute_queue().commands().write(word, 5).submit().wait()
        assert word.cpu_view().cast("Q")[0] == 5
    with open_device("NV", system=board) as device:
        word = device.alloc(8)
        device.compute_queue().commands().write(word, 7).submit().wait()
        assert word.cpu_view().cast("Q")[0] == 7


def test_a_container_tells_no_address_but_the_rest() -> None:
    system = EmulatedSystem("sm_90,container")
    try:
        with open_device("NV", system=system) as device:
            gone = device.alloc(3 << 20)
            commands = device.compute_queue().commands().copy(gone, device.alloc(3 << 20))
            device.gpu_memory.unreach(device.gpu_memory.blocks[gone.gpu_addr])
            said = "NV:0 met a page fault whose address it does not tell in a copy of 3.0 MiB"
            with pytest.raises(DeviceFault, match=re.escape(said)):
                commands.submit().wait()
    finally:
        system.shut_down()


LIBRARIES = """
import sys
from drivers import open_device, probe
from compiler.cubin import read


def loaded():
    with open("/proc/self/maps") as file:
        files = {line.split()[-1].rpartition("/")[2] for line in file if ".so" in line}
    words = ("cuda", "nvidia", "nvrtc", "nvjitlink", "cublas")
    return sorted(each for each in files if any(word in each.lower() for word in words))


with open_device("NV") as device:
    one, other = device.alloc(4096), device.alloc(4096)
    one.cpu_view()[:] = b"7" * 4096
    device.compute_queue().commands().copy(other, one).submit().wait()
    assert other.cpu_view() == one.cpu_view()
    print(loaded())
    if sys.argv[1] == "compiles":
        from compiler.nvrtc import compile_cuda
        compile_cuda('extern "C" __global__ void k(int *x) { x[0] = 1; }', device.target.arch)
    print(loaded())
"""


def test_no_cuda_library_is_in_the_process(monkeypatch) -> None:
    if not os.path.exists(NODES[0]) and "EMULATE" not in os.environ:
        monkeypatch.setenv("EMULATE", "sm_90")
    compiles = "no" if nvrtc.missing() else "compiles"
    done = subprocess.run(
        [sys.executable, "-c", LIBRARIES, compiles], capture_output=True, text=True, check=False,
        cwd=Path(__file__).parents[3],
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    before, after = map(eval, done.stdout.splitlines())
    assert before == []
    assert all(name.startswith("libnvrtc") for name in after)
    assert bool(after) == (compiles == "compiles")


def test_an_error_is_a_hardware_error_of_the_device(board) -> None:
    for path in NODES:
        with pytest.raises(HardwareError) as caught:
            open_device("NV", system=Blocked(board, path, errno.EMFILE))
        assert caught.value.code == "HW109" and "EMFILE" in str(caught.value)
        assert path in str(caught.value)
