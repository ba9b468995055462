"""Every call to the operating system fails once, against the scripted kernel driver."""

from __future__ import annotations

import errno
import gc
import os

import pytest

from drivers import HardwareError, open_device
from drivers.errors import OutOfDeviceMemory, SystemCallFailed
from drivers.system import FailingSystem, RecordingSystem
from drivers.timeline import memory_view
from test.drivers.amd.scripted import ScriptedSystem

ERRORS = (errno.ENOMEM, errno.EINTR, errno.EPERM)


def scenario(system) -> None:
    """Opens, allocates, makes both queues, submits, replays, frees, closes."""
    with open_device("AMD", system=system, timeout_ms=50) as device:
        small, large = device.alloc(64), device.alloc(8 << 20)
        for queue in (device.compute_queue(), device.copy_queue()):
            commands = queue.commands().write(small, 1).copy(large, small)
            commands.submit()
            commands.bind().replay()
            memory_view(queue.timeline.address, 8).cast("Q")[0] = 2
        del large
        device.trim()


def test_the_scenario_goes_through_the_system():
    scripted = ScriptedSystem()
    record = RecordingSystem(scripted)
    scenario(record)
    names = [name for name, _, _ in record.calls]
    record.calls.clear()  # the end of the topology is an error, which holds its frames
    gc.collect()
    assert {"open", "read", "ioctl", "mmap", "munmap", "kick"} <= set(names)
    assert len(scripted.handles) == 1  # the page of events


@pytest.mark.parametrize("number", ERRORS, ids=[errno.errorcode[number] for number in ERRORS])
def test_each_call_fails_once(number):
    record = RecordingSystem(ScriptedSystem())
    scenario(record)
    total = len(record.calls)
    assert total > 60
    gc.collect()
    for nth in range(1, total + 1):
        scripted = ScriptedSystem()
        failing = FailingSystem(scripted, nth, number)
        before = len(os.listdir("/proc/self/fd"))
        try:
            scenario(failing)
        except HardwareError as error:
            assert error.device.startswith("AMD"), (nth, failing.failed)
            if isinstance(error, SystemCallFailed):
                assert error.errno == number
                assert errno.errorcode[number] in str(error)
            elif number == errno.ENOMEM and failing.failed in ("mmap", "ioctl"):
                assert isinstance(error, HardwareError | OutOfDeviceMemory)
            error.__traceback__ = None
            del error
        failed = failing.failed
        assert failed or nth > failing.count
        del failing
        gc.collect()
        assert not scripted.queues, (nth, failed)
        assert len(scripted.handles) <= 2, (nth, failed)  # the page, and what failed to be freed
        assert len(os.listdir("/proc/self/fd")) == before, (nth, failed)
