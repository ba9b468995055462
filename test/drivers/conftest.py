"""The device under test: every test of this folder runs on each name of DEVICES."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator

import pytest

from drivers import Device, open_device, probe
from drivers.errors import DeviceNotAvailable

PROCESSORS = ("LLVM", "CLANG")
# Boards of NVIDIA's do not run kernels by default yet; EMULATE=sm_90 asks for one.
NVIDIA = os.path.exists("/dev/nvidiactl") or os.environ.get("EMULATE", "").startswith("sm_")
DEVICES = (*PROCESSORS, "NV" if NVIDIA else "AMD")


@pytest.fixture(params=DEVICES)
def device_name(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    name = str(request.param)
    if name == "AMD" and not os.path.exists("/dev/kfd") and "EMULATE" not in os.environ:
        monkeypatch.setenv("EMULATE", "gfx1100*4")
    available, sentence = probe(name)
    if not available:
        pytest.skip(f"{name}: {sentence}")
    return name


@pytest.fixture(params=PROCESSORS)
def processor_name(request: pytest.FixtureRequest) -> str:
    """A device for what is the processor's own: threads, blocks that wait for each other."""
    name = str(request.param)
    available, sentence = probe(name)
    if not available:
        pytest.skip(f"{name}: {sentence}")
    return name


@pytest.fixture
def processor(processor_name: str) -> Iterator[Device]:
    with open_device(processor_name) as opened:
        yield opened


@pytest.fixture
def device(device_name: str) -> Iterator[Device]:
    with open_device(device_name) as opened:
        yield opened


@pytest.fixture
def opened(device_name: str) -> Iterator[Callable[..., Device]]:
    """Opens more devices of the name under test, with options; all are closed at the end."""
    devices: list[Device] = []

    def open_another(**options: object) -> Device:
        try:
            another = open_device(f"{device_name}:{len(devices) + 1}", **options)
        except DeviceNotAvailable:  # a machine with fewer GPUs: the first one again
            another = open_device(device_name, **options)
        devices.append(another)
        return devices[-1]

    yield open_another
    for device in devices:
        device.close()
