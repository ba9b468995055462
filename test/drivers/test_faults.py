"""Every call to the operating system fails once: a typed error, no leak, and no hang."""

from __future__ import annotations

import contextlib
import errno
import gc
import os
import pickle

import pytest

from drivers import HardwareError, Var, open_device
from drivers.errors import DeviceHang, OutOfDeviceMemory, SystemCallFailed
from drivers.system import FailingSystem, RealSystem, RecordingSystem, StackedSystem
from test.drivers import kernels

ERRORS = (errno.ENOMEM, errno.EAGAIN, errno.EPERM, errno.EINTR, errno.ENODEV)


def scenario(name: str, system) -> None:
    """Opens, allocates, loads, submits, replays, frees, closes."""
    with open_device(name, system=system) as device:
        data, large = device.alloc(64), device.alloc(8 << 20)
        values = data.cpu_view().cast("q")
        values[0] = 0
        program = device.load(kernels.add_number(device.target))
        queue = device.compute_queue()
        commands = queue.commands().exec(program, (data, data, Var("n")), (1, 1, 1))
        commands.submit(n=1).wait()
        commands.bind().replay(n=1).wait()
        device.copy_queue().commands().copy(large, data).submit().wait()
        assert values[0] == 2
        del large
        device.trim()


def test_the_scenario_goes_through_the_system(processor_name):
    record = RecordingSystem(RealSystem())
    scenario(processor_name, record)
    gc.collect()
    names = [name for name, _, _ in record.calls]
    assert {"mmap", "munmap", "mprotect", "start_thread", "join_thread", "kick"} <= set(names)
    assert names.count("mmap") == names.count("munmap")
    assert names.count("start_thread") == names.count("join_thread")


@pytest.mark.parametrize("number", ERRORS, ids=[errno.errorcode[number] for number in ERRORS])
def test_each_call_fails_once(processor_name, number):
    record = RecordingSystem(RealSystem())
    scenario(processor_name, record)
    gc.collect()
    total = len(record.calls)
    for nth in range(1, total + 1):
        lower = RecordingSystem(RealSystem())
        failing = FailingSystem(lower, nth, number)
        threads = len(os.listdir("/proc/self/task"))
        try:
            scenario(processor_name, failing)
        except HardwareError as error:
            # Name the call, the reason and the device; hold no traceback on to the device.
            assert processor_name in str(error)
            if isinstance(error, SystemCallFailed):
                assert error.errno == number
                assert errno.errorcode[number] in str(error)
            else:
                assert isinstance(error, OutOfDeviceMemory)
            error.__traceback__ = None
            del error
        gc.collect()
        if nth > failing.count:
            continue  # an error made the scenario shorter
        assert failing.failed
        done = [(name, args[0]) for name, args, result in lower.calls
                if not isinstance(result, OSError)]
        mapped = sum(1 for name, _ in done if name == "mmap")
        unmapped = sum(1 for name, _ in done if name == "munmap")
        assert mapped == unmapped, (nth, failing.failed)
        assert len(os.listdir("/proc/self/task")) == threads


def test_memory_that_fails_once_is_taken_from_the_cache_that_is_given_back(processor_name):
    failing = FailingSystem(RealSystem(), 0, names=("mmap",))
    with open_device(processor_name, system=failing) as device:
        device.alloc(4 << 20)
        failing.nth = failing.count + 1
        buffer = device.alloc(5 << 20)
        assert failing.failed == "mmap"
        assert buffer.size_bytes == 5 << 20


class LostDoorbell(StackedSystem):
    """Replaces the kick by a function that does nothing of the kind."""

    def kick(self, function: int) -> int:
        from drivers.system import address_of

        return address_of("getpid")


def test_a_lost_doorbell_is_a_hang_that_says_so(processor_name):
    with open_device(processor_name, system=LostDoorbell(RealSystem()), timeout_ms=200) as device:
        queue = device.compute_queue("deaf")
        with pytest.raises(DeviceHang) as caught:
            for _ in range(100):
                point = queue.commands().barrier().submit()
                point.wait()
                # Awake by chance: its thread sleeps after a short spin.
                import time

                time.sleep(0.01)
        assert "queue deaf" in str(caught.value)
        assert "has not seen its doorbell" in str(caught.value)


def test_systems_stack_and_every_call_passes(tmp_path):
    record = RecordingSystem(RealSystem())
    system = FailingSystem(record, nth=10_000)
    path = tmp_path / "file"
    path.write_bytes(b"hello")
    descriptor = system.open(str(path), os.O_RDONLY)
    assert system.read(descriptor, 3) == b"hel"
    assert system.poll(descriptor, 1, 0) == 1
    with pytest.raises(OSError, match="ioctl") as caught:
        system.ioctl(descriptor, 0x5401, 0)
    assert caught.value.errno in (errno.ENOTTY, errno.EFAULT)
    system.close(descriptor)
    with pytest.raises(FileNotFoundError):
        system.open(str(tmp_path / "absent"), os.O_RDONLY)
    assert [name for name, _, _ in record.calls] == [
        "open", "read", "poll", "ioctl", "close", "open"
    ]


def test_errors_survive_pickling(processor):
    with pytest.raises(HardwareError) as caught:
        processor.timeline("x").point(1).wait(timeout_ms=0)
    copy = pickle.loads(pickle.dumps(caught.value))
    assert type(copy) is type(caught.value)
    assert str(copy) == str(caught.value)
    failed = SystemCallFailed.wrap(OSError(errno.ENOMEM, "x"), "mmap", "LLVM:0")
    assert pickle.loads(pickle.dumps(failed)).errno == errno.ENOMEM
    with contextlib.suppress(OSError):
        raise OSError
