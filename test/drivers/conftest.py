"""The device under test: every test of this folder runs on each name of DEVICES."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest

from drivers import Device, open_device, probe

DEVICES = ("LLVM", "CLANG")


@pytest.fixture(params=DEVICES)
def device_name(request: pytest.FixtureRequest) -> str:
    name = str(request.param)
    available, sentence = probe(name)
    if not available:
        pytest.skip(f"{name}: {sentence}")
    return name


@pytest.fixture
def device(device_name: str) -> Iterator[Device]:
    with open_device(device_name) as opened:
        yield opened


@pytest.fixture
def opened(device_name: str) -> Iterator[Callable[..., Device]]:
    """Opens more devices of the name under test, with options; all are closed at the end."""
    devices: list[Device] = []

    def open_another(**options: object) -> Device:
        devices.append(open_device(f"{device_name}:{len(devices) + 1}", **options))
        return devices[-1]

    yield open_another
    for device in devices:
        device.close()
