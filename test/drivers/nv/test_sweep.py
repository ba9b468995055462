"""Every call to the operating system fails once, between the driver and an emulated board."""

from __future__ import annotations

import errno
import gc
import os

import pytest

from drivers import HardwareError, open_device
from drivers.emulated.system import EmulatedSystem
from drivers.errors import SystemCallFailed
from drivers.system import FailingSystem, RecordingSystem

ERRORS = (errno.ENOMEM, errno.EPERM)
STEP = 1 if os.environ.get("TINYHW_FULL") == "1" else 5  # 20 s for all calls


def scenario(system) -> None:
    """Opens, allocates, makes both queues, submits, replays, frees, closes."""
    with open_device("NV", system=system, timeout_ms=5000) as device:
        small, large = device.alloc(64), device.alloc(8 << 20)
        with open_device("LLVM") as processor:
            mark = processor.timeline("mark")
            for turn, queue in enumerate((device.compute_queue(), device.copy_queue()), 1):
                commands = queue.commands().write(small, 1).copy(large, small)
                commands.signal(mark.point(turn)).submit().wait()
                commands.bind().replay().wait()
        assert large.cpu_view()[0] == 1
        del large
        device.trim()


def descriptors() -> int:
    return len(os.listdir("/proc/self/fd"))


def mappings() -> int:
    """Of the board's memory in this process."""
    with open("/proc/self/maps") as file:
        return sum("memfd:" in line and "timelines" not in line for line in file)


@pytest.fixture(scope="module")
def board():
    system = EmulatedSystem("sm_90")
    yield system
    system.shut_down()


def test_the_scenario_goes_through_the_system(board):
    record = RecordingSystem(board)
    scenario(record)
    names = [name for name, _, _ in record.calls]
    assert {"open", "ioctl", "mmap", "munmap", "kick"} <= set(names)
    paths = {str(arguments[0]) for name, arguments, _ in record.calls if name == "open"}
    assert paths == {"/dev/nvidiactl", "/dev/nvidia0", "/dev/nvidia-uvm"}


@pytest.mark.parametrize("number", ERRORS, ids=[errno.errorcode[number] for number in ERRORS])
def test_each_call_fails_once(board, number):
    keep = os.open("/dev/null", os.O_RDONLY)
    record = RecordingSystem(board)
    scenario(record)
    total = len(record.calls)
    assert total > 150
    del record
    gc.collect()
    for nth in range(1 + ERRORS.index(number), total + 1, STEP):
        failing = FailingSystem(board, nth, number)
        before, mapped = descriptors(), mappings()
        try:
            scenario(failing)
        except HardwareError as error:
            assert error.device.startswith("NV"), (nth, failing.failed)
            if isinstance(error, SystemCallFailed):
                assert error.errno == number, (nth, str(error))
                assert errno.errorcode[number] in str(error)
            error.__traceback__ = None
            del error
        failed = failing.failed
        assert failed or nth > failing.count
        del failing
        gc.collect()
        assert descriptors() == before, (nth, failed)
        # A page that could not be taken from the GPU stays with its address.
        assert mappings() - mapped <= (failed == "ioctl"), (nth, failed)
    os.close(keep)
