"""Boards for the tests of this folder: one machine for a module, a fresh program for each test."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from drivers.emulated.system import EmulatedSystem
from test.drivers.emulated.kfd_client import Client
from test.drivers.emulated.nv_client import Rm


@pytest.fixture(scope="module")
def system() -> Iterator[EmulatedSystem]:
    system = EmulatedSystem("gfx1100")
    yield system
    system.shut_down()


@pytest.fixture
def client(system: EmulatedSystem) -> Iterator[Client]:
    client = Client(system)
    yield client
    client.close()


@pytest.fixture(scope="module")
def pair() -> Iterator[EmulatedSystem]:
    """Two boards in one machine."""
    system = EmulatedSystem("gfx1100*2")
    yield system
    system.shut_down()


@pytest.fixture(scope="module")
def hopper() -> Iterator[EmulatedSystem]:
    system = EmulatedSystem("sm_90")
    yield system
    system.shut_down()


@pytest.fixture
def rm(hopper: EmulatedSystem) -> Iterator[Rm]:
    """A client of NVIDIA's driver that has a device."""
    rm = Rm(hopper)
    rm.device()
    yield rm
    rm.close()
