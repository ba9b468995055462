"""Device names, the default, opening."""

from __future__ import annotations

import pytest

import drivers
from drivers.errors import DeviceNotAvailable
from tinyhw.device import PREFERENCE, Device, _Devices
from tinyhw.errors import DeviceError, SettingError


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
