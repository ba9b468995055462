"""Opening an NVIDIA GPU: versions, nodes and statuses, before any GPU is there."""

from __future__ import annotations

import ctypes
import errno

import pytest

from autogen import nv_555
from drivers import open_device, probe
from drivers.errors import (
    DeviceNotAvailable,
    NodeNotAccessible,
    OutOfDeviceMemory,
    SystemCallFailed,
    UnknownAbi,
)
from drivers.nv.abi import BRANCHES, Abi
from drivers.nv.rm import check_status
from drivers.system import RealSystem, StackedSystem

# Bytes, measured with a C compiler on the headers of each branch.
SIZES = {
    535: (360, 2, 48, 24, 28, 120, 1200), 550: (360, 2, 48, 24, 28, 128, 9264),
    565: (360, 2, 48, 24, 28, 128, 9264), 570: (368, 2, 48, 24, 28, 128, 9264),
    575: (368, 3, 48, 24, 28, 128, 9264), 580: (368, 3, 56, 24, 28, 128, 9264),
    590: (368, 3, 56, 16, 12, 128, 9264),
}  # fmt: skip
STRUCTURES = (
    "NV_CHANNEL_ALLOC_PARAMS", "NVA06C_CTRL_GPFIFO_SCHEDULE_PARAMS",
    "NV_VASPACE_ALLOCATION_PARAMETERS", "UVM_FREE_PARAMS", "UVM_UNREGISTER_CHANNEL_PARAMS",
    "NV_MEMORY_ALLOCATION_PARAMS", "UVM_MAP_EXTERNAL_ALLOCATION_PARAMS",
)


class Nodes(StackedSystem):
    """Nodes that open, or do not, and a driver that tells its version and nothing else."""

    def __init__(self, version: str = "", number: int = 0) -> None:
        super().__init__(RealSystem())
        self.version, self.number = version, number
        self.closed = 0

    def open(self, path: str, flags: int) -> int:
        if self.number or not path.startswith("/dev/"):
            raise OSError(self.number or errno.ENOENT, path)
        return super().open("/dev/null", flags)

    def close(self, descriptor: int) -> None:
        self.closed += 1
        super().close(descriptor)

    def ioctl(self, descriptor: int, request: int, argument: int) -> int:
        assert request >> 8 & 0xFF == ord("F")
        if request & 0xFF != nv_555.NV_ESC_CHECK_VERSION_STR or not self.version:
            raise OSError(errno.EINVAL, "ioctl")
        offset = nv_555.nv_ioctl_rm_api_version_t.versionString.offset
        assert ctypes.string_at(argument, 4) == b"2\0\0\0"
        ctypes.memmove(argument + offset, self.version.encode() + b"\0", len(self.version) + 1)
        return 0


@pytest.mark.parametrize("branch", SIZES)
def test_structures_have_the_sizes_that_each_branch_insists_on(branch: int) -> None:
    abi = Abi(f"{branch}.12.34", "NV:0")
    assert tuple(ctypes.sizeof(abi.structure(name)) for name in STRUCTURES) == SIZES[branch]


def test_a_structure_leaves_out_what_its_version_lacks() -> None:
    before, after = (
        Abi(version, "NV:0").make("UVM_FREE_PARAMS", base=4096, length=8192)
        for version in ("580.1", "590.1")
    )
    assert (before.base, before.length) == (4096, 8192)
    assert after.base == 4096 and not hasattr(after, "length")


@pytest.mark.parametrize("version", ["470.223.02", "545.29.06", "610.43", "nonsense", ""])
def test_an_unknown_version_is_refused_by_name_with_the_known_ones(version: str) -> None:
    system = Nodes(version)
    with pytest.raises(UnknownAbi, match=version or "unknown") as caught:
        open_device("NV", system=system)
    assert ", ".join(map(str, BRANCHES)) in str(caught.value)
    assert system.closed == 1


@pytest.mark.parametrize(
    ("number", "kind", "sentence"),
    [
        (errno.ENOENT, DeviceNotAvailable, "/dev/nvidiactl does not exist.*EMULATE=1"),
        (errno.EACCES, NodeNotAccessible, r"Cannot open /dev/nvidiactl \(EACCES\)"),
        (errno.EMFILE, SystemCallFailed, r"open /dev/nvidiactl failed \(EMFILE\)"),
    ],
)
def test_a_node_that_does_not_open_says_why(number, kind, sentence) -> None:
    with pytest.raises(kind, match=f"(?s){sentence}"):
        open_device("NV", system=Nodes(number=number))


def test_probing_says_what_is_missing_and_emulation_offers_itself(monkeypatch) -> None:
    monkeypatch.delenv("EMULATE", raising=False)
    works, sentence = probe("NV")
    if not works:
        assert "/dev/nvidiactl does not exist" in sentence and "EMULATE=1" in sentence
    for boards in ("1", "sm_90", "sm_89*2"):
        monkeypatch.setenv("EMULATE", boards)
        assert probe("NV")[0]
    monkeypatch.setenv("EMULATE", "gfx1100")
    assert probe("NV")[0] == works


def test_what_cannot_be_recorded_says_so(monkeypatch, tmp_path) -> None:
    monkeypatch.setenv("EMULATE", "sm_90")
    monkeypatch.setenv("RECORD", str(tmp_path / "run.rec"))
    with pytest.raises(DeviceNotAvailable, match="only AMD devices can be recorded"):
        open_device("NV")


def test_a_status_becomes_a_sentence_and_an_errno() -> None:
    check_status(0, "allocating", "NV:0")
    with pytest.raises(SystemCallFailed, match="NV_ERR_INVALID_CLASS, 0x22") as caught:
        check_status(0x22, "allocating HOPPER_COMPUTE_A", "NV:0")
    assert caught.value.errno == errno.EIO
    for status in (0x51, 0x1A):
        with pytest.raises(SystemCallFailed) as caught:
            check_status(status, "allocating", "NV:0")
        assert caught.value.errno == errno.ENOMEM
    with pytest.raises(SystemCallFailed, match="status 0x1234"):
        check_status(0x1234, "allocating", "NV:0")


def test_out_of_memory_names_what_is_free(nv_device) -> None:
    with pytest.raises(OutOfDeviceMemory, match=r"Cannot allocate .* free, the largest piece"):
        nv_device.alloc(1 << 45)
