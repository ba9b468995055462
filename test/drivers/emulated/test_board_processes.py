"""The board's process: it starts with the first node, ends with its program, shares nothing."""

from __future__ import annotations

import ctypes
import errno
import gc
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from drivers.emulated.system import EmulatedSystem
from drivers.errors import DeviceNotAvailable
from drivers.system import FailingSystem, RealSystem, RecordingSystem
from test.drivers.emulated.kfd_client import PATIENCE_S, VISIBLE, Client, Queue, until
from test.drivers.emulated.packets import wait_mem, write_data

ROOT = Path(__file__).resolve().parents[3]


def board_of(system: EmulatedSystem) -> int:
    assert system.process is not None
    return system.process.child.pid


def gone(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return True
    with open(f"/proc/{pid}/stat") as stat:
        return stat.read().rpartition(")")[2].split()[0] == "Z"


def resources() -> tuple[int, int, int]:
    gc.collect()
    maps = Path("/proc/self/maps").read_text().count("memfd:")
    return len(os.listdir("/proc/self/fd")), maps, threading.active_count()


def test_nothing_starts_before_a_node_is_opened() -> None:
    system = EmulatedSystem()
    descriptor = system.open("/proc/self/status", os.O_RDONLY)
    system.close(descriptor)
    assert system.process is None


def test_shutting_down_ends_the_process_and_a_new_one_starts_on_demand() -> None:
    system = EmulatedSystem()
    client = Client(system)
    first = board_of(system)
    system.shut_down()
    assert gone(first)
    with pytest.raises(OSError):
        client.call("GET_VERSION")
    again = Client(system)
    assert again.call("GET_VERSION").major_version == 1
    second = board_of(system)
    again.close()
    system.shut_down()
    assert gone(second)


@pytest.mark.parametrize(("description", "sentence"), [
    ("gfx9999", "no emulated board 'gfx9999'; there are gfx1100, gfx1030"),
    ("gfx1100,seed=x", "no emulated board 'seed=x'"),
    ("gfx1100*17", "17 boards; a machine has 1 to 16"),
    ("sm_90,strict", "no emulated board 'strict'; there are sm_75"),
])
def test_boards_that_there_are_not_are_refused_in_a_sentence(
    description: str, sentence: str, capfd: pytest.CaptureFixture[str]
) -> None:
    system = EmulatedSystem(description)
    node = "/dev/nvidiactl" if description.startswith("sm_") else "/dev/kfd"
    for _ in range(2):
        with pytest.raises(DeviceNotAvailable, match=sentence):
            system.open(node, os.O_RDWR)
    assert system.process is None
    assert capfd.readouterr().err == ""


def test_a_dropped_system_ends_its_process() -> None:
    system = EmulatedSystem()
    Client(system)
    pid = board_of(system)
    del system
    gc.collect()
    until(lambda: gone(pid))


def test_opening_and_closing_leaks_nothing() -> None:
    system = EmulatedSystem()
    Client(system).close()
    before = resources()
    for _ in range(200):
        client = Client(system)
        memory = client.alloc(1 << 20, VISIBLE)
        queue = Queue(client, 1)
        queue.destroy()
        memory.free()
        client.close()
    assert resources() == before
    with open(f"/proc/{board_of(system)}/status") as status:
        (threads,) = (line.split()[1] for line in status if line.startswith("Threads:"))
    assert int(threads) < 10
    system.shut_down()


def test_an_idle_board_is_small_whatever_it_claims() -> None:
    system = EmulatedSystem("gfx942")
    client = Client(system)
    memory = client.alloc(100 << 30, VISIBLE)
    with open(f"/proc/{board_of(system)}/status") as status:
        (resident,) = (int(line.split()[1]) for line in status if line.startswith("VmRSS:"))
    assert resident < 300 << 10
    memory.free()
    client.close()
    system.shut_down()


PROGRAM = """
import sys, types
package = sys.modules["test"] = types.ModuleType("test")
package.__path__ = ["test"]
import time
from drivers.emulated.system import EmulatedSystem
from test.drivers.emulated.kfd_client import Client, Queue, VISIBLE
from test.drivers.emulated.packets import wait_mem
system = EmulatedSystem()
client = Client(system)
memory = client.alloc(1 << 20, VISIBLE)
queue = Queue(client, 0)
queue.put(wait_mem(memory.address, 1))
print(system.process.child.pid, flush=True)
if sys.argv[1] == "wait":
    time.sleep(60)
"""


def program(mode: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", PROGRAM, mode], cwd=ROOT, stdout=subprocess.PIPE, text=True,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
    )


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGTERM, signal.SIGINT, None])
def test_the_board_ends_with_its_program_however_that_ends(how: signal.Signals | None) -> None:
    child = program("wait" if how else "exit")
    assert child.stdout is not None
    board = int(child.stdout.readline())
    if how:
        assert not gone(board)
        child.send_signal(how)
    child.wait(20)
    until(lambda: gone(board))
    child.stdout.close()


def test_a_board_that_was_killed_is_a_lost_device_not_a_crash() -> None:
    system = EmulatedSystem()
    client = Client(system)
    os.kill(board_of(system), signal.SIGKILL)
    with pytest.raises(OSError) as raised:
        client.call("GET_VERSION")
    assert raised.value.errno == errno.ENODEV
    client.close()
    system.shut_down()


def test_two_programs_use_the_same_addresses() -> None:
    """A child of a fork has its parent's layout of memory; its boards are its own."""
    system = EmulatedSystem()
    client = Client(system)
    memory = client.alloc(4096, VISIBLE)
    memory.u32().value = 1
    child = os.fork()
    if child == 0:
        status = 1
        try:
            with pytest.raises(OSError) as raised:
                client.call("GET_VERSION")
            own = EmulatedSystem()
            other = Client(own)
            args = other.call("ALLOC_MEMORY_OF_GPU", va_addr=memory.address, size=4096,
                              flags=VISIBLE, gpu_id=other.gpu_ids[0])
            other.map(args.handle, 0)
            queue = Queue(other, 0)
            queue.put(write_data(memory.address, 2))
            queue.wait_idle()
            own.shut_down()
            status = 0 if raised.value.errno == errno.EBADF else 2
        finally:
            os._exit(status)
    assert os.waitpid(child, 0)[1] == 0
    assert memory.u32().value == 1
    assert client.call("GET_VERSION").major_version == 1
    client.close()
    system.shut_down()


def test_a_child_that_outlives_its_parent_does_not_keep_the_board() -> None:
    code = PROGRAM + "\nimport os\nif os.fork() == 0:\n    time.sleep(30)\nos._exit(0)"
    child = subprocess.Popen(
        [sys.executable, "-c", code, "exit"], cwd=ROOT, stdout=subprocess.PIPE, text=True,
        env=os.environ | {"PYTHONPATH": str(ROOT)}, start_new_session=True,
    )
    assert child.stdout is not None
    board = int(child.stdout.readline())
    child.wait(20)
    until(lambda: gone(board))
    child.stdout.close()
    os.killpg(child.pid, signal.SIGKILL)


def test_a_waiting_call_does_not_keep_the_program_from_ending() -> None:
    system = EmulatedSystem()
    client = Client(system)
    event = client.create_event().event_id
    errors = []

    def wait() -> None:
        try:
            client.wait(event, timeout=2000 * PATIENCE_S)
        except OSError as error:
            errors.append(error.errno)

    thread = threading.Thread(target=wait)
    thread.start()
    time.sleep(0.05)
    system.shut_down()
    thread.join(PATIENCE_S)
    assert not thread.is_alive()
    assert errors == [errno.ENODEV]


def test_systems_stack() -> None:
    """Recording and failing wrap a board as they wrap the real system."""
    emulated = EmulatedSystem()
    recorded = RecordingSystem(emulated)
    failing = FailingSystem(recorded, nth=1, number=errno.EINTR, names=("ioctl",))
    descriptor = failing.open("/dev/kfd", os.O_RDWR)
    argument = (ctypes.c_uint32 * 2)()
    with pytest.raises(InterruptedError):
        failing.ioctl(descriptor, 0x80084B01, ctypes.addressof(argument))
    failing.ioctl(descriptor, 0x80084B01, ctypes.addressof(argument))
    assert argument[0] == 1
    failing.close(descriptor)
    assert [name for name, _, _ in recorded.calls] == ["open", "ioctl", "close"]
    below = EmulatedSystem(below=RecordingSystem(RealSystem()))
    client = Client(below)
    client.close()
    for system in (emulated, below):
        system.shut_down()


def test_a_queue_that_waits_forever_does_not_keep_its_process() -> None:
    system = EmulatedSystem()
    client = Client(system)
    memory = client.alloc(4096, VISIBLE)
    Queue(client, 0).put(wait_mem(memory.address, 1))
    pid = board_of(system)
    client.close()
    again = Client(system)
    assert again.call("GET_VERSION").major_version == 1
    again.close()
    system.shut_down()
    assert gone(pid)


HOOKED = """
import importlib.util, os, sys

class Finder:
    def find_spec(self, name, path=None, target=None):
        file = f"{sys.argv[1]}/{name}/__init__.py"
        if "." in name or not os.path.exists(file):
            return None
        return importlib.util.spec_from_file_location(
            name, file, submodule_search_locations=[os.path.dirname(file)])

sys.path = [path for path in sys.path if path not in ("", sys.argv[1])]
sys.meta_path.append(Finder())
from drivers.emulated.system import EmulatedSystem
system = EmulatedSystem("gfx1100")
system.close(system.open("/dev/kfd", os.O_RDWR))
print("opened")
"""


def test_a_board_starts_where_the_sources_are_found_by_a_hook(tmp_path):
    """As an editable installation has it: the sources are in no folder of the search path."""
    root = Path(__file__).resolve().parents[3]
    done = subprocess.run(
        [sys.executable, "-c", HOOKED, str(root)], cwd=tmp_path, check=False, text=True,
        capture_output=True, timeout=120,
        env={name: value for name, value in os.environ.items() if name != "PYTHONPATH"},
    )
    assert done.stdout == "opened\n", done.stderr
