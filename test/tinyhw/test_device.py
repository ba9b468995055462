"""Device names, the default, opening."""

from __future__ import annotations

import os
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

import drivers
from drivers.errors import DeviceNotAvailable
from tinyhw.device import PREFERENCE, Device, _Devices
from tinyhw.errors import DeviceError, SettingError

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(autouse=True)
def no_variables(monkeypatch):
    for name in (*drivers.DEVICE_NAMES, "EMULATE"):
        monkeypatch.delenv(name, raising=False)


def test_every_device_has_a_place_in_the_preference():
    assert sorted(PREFERENCE) == sorted(drivers.DEVICE_NAMES)


def test_the_default_is_the_first_that_opens():
    devices = _Devices()
    assert devices.DEFAULT == next(devices.get_available_devices())
    assert "LLVM" in devices.get_available_devices()


@pytest.mark.parametrize("name", ["LLVM", "CLANG", "AMD"])
def test_a_variable_chooses_the_default(monkeypatch, name):
    monkeypatch.setenv(name, "1")
    assert _Devices().DEFAULT == name


def test_a_variable_of_zero_chooses_nothing(monkeypatch):
    monkeypatch.setenv("CLANG", "0")
    assert _Devices().DEFAULT == next(_Devices().get_available_devices())


def test_two_variables_are_an_error(monkeypatch):
    monkeypatch.setenv("LLVM", "1")
    monkeypatch.setenv("CLANG", "1")
    with pytest.raises(SettingError, match="CLANG=1 and LLVM=1"):
        _ = _Devices().DEFAULT


def test_a_malformed_variable_is_an_error(monkeypatch):
    monkeypatch.setenv("LLVM", "x")
    with pytest.raises(SettingError, match="LLVM is 'x'"):
        _ = _Devices().DEFAULT


def test_the_default_can_be_set():
    devices = _Devices()
    devices.DEFAULT = "clang:0"
    assert devices.DEFAULT == "CLANG"
    with pytest.raises(DeviceError):
        devices.DEFAULT = "TPU"


@pytest.mark.parametrize(
    ("given", "name"),
    [("llvm", "LLVM"), ("LLVM:0", "LLVM"), ("Llvm:1", "LLVM:1"), ("LLVM:01", "LLVM:1")],
)
def test_names_have_one_spelling(given, name):
    assert Device.canonicalize(given) == name


def test_no_name_is_the_default():
    assert Device.canonicalize(None) == Device.DEFAULT


@pytest.mark.parametrize("name", ["TPU", "", "LLVM:x", "LLVM:", ":1"])
def test_an_unknown_name_is_an_error_that_lists_the_names(name):
    with pytest.raises(DeviceError, match=r"the names are AMD, .*LLVM"):
        Device.canonicalize(name)


def test_a_device_is_opened_once():
    assert Device["LLVM"] is Device["llvm:0"]
    assert isinstance(Device["LLVM"], drivers.Device)


def test_a_device_that_is_not_here_says_why():
    with pytest.raises(DeviceNotAvailable, match="AMD"):
        _ = _Devices()["AMD"]  # not one that an earlier test has opened on an emulated board


AFTER_A_FAULT = """
    from drivers.errors import DeviceFault
    from drivers.memory import Buffer
    from tinyhw import Device, Tensor

    x = Tensor([1.0, 2.0]).realize()
    device = Device["AMD"]
    there = device.alloc(64)
    beyond = Buffer(device.name, there.storage, there.gpu_addr + (1 << 40), 64)
    device.copy_queue().commands().copy(there, beyond).submit()
    try:
        print((x + 1).tolist())
    except DeviceFault as fault:
        print(str(fault).split(" (")[0].split(" 0x")[0])
    device.close()
    print((x + 1).tolist(), Device["AMD"] is device)
"""


def test_a_device_that_was_closed_after_a_fault_opens_again():
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(AFTER_A_FAULT)], cwd=ROOT, capture_output=True,
        text=True, timeout=300, env={**os.environ, "AMD": "1", "EMULATE": "gfx1100"},
    )
    assert done.stdout.splitlines() == ["AMD:0 read", "[2.0, 3.0] False"], done.stderr
