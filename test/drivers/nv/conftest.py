"""NVIDIA GPUs under test: an emulated board of each generation, or the one that EMULATE names."""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest

from drivers import Device, open_device

BOARDS = ("sm_75", "sm_86", "sm_89", "sm_90")


@pytest.fixture
def nv_device(monkeypatch: pytest.MonkeyPatch) -> Iterator[Device]:
    """One device, a Hopper unless EMULATE or the machine says otherwise."""
    if not os.path.exists("/dev/nvidiactl") and "EMULATE" not in os.environ:
        monkeypatch.setenv("EMULATE", "sm_90")
    with open_device("NV") as device:
        yield device


@pytest.fixture(params=BOARDS)
def board_device(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[
    Device
]:
    """A device of each generation that is emulated."""
    monkeypatch.setenv("EMULATE", request.param)
    with open_device("NV") as device:
        yield device
