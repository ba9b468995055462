"""Opening and closing: names, leaks, forks, use after close, and the end of the process."""

from __future__ import annotations

import gc
import os
import signal
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import pytest

import drivers
from drivers import DEVICE_NAMES, HardwareError, Var, open_device, probe
from drivers.errors import (
    ArgumentMismatch,
    DeviceClosed,
    DeviceNotAvailable,
    ForkedProcess,
    MalformedInput,
    UnknownDevice,
)
from test.drivers import kernels

ROOT = Path(drivers.__file__).parents[1]


def threads() -> int:
    return len(os.listdir("/proc/self/task"))


def descriptors() -> int:
    return len(os.listdir("/proc/self/fd"))


def mappings() -> int:
    with open("/proc/self/maps") as file:
        return sum(1 for _ in file)


def board(device) -> dict[str, int]:
    """What the process of an emulated board holds; nothing for other devices."""
    process = getattr(device.system, "process", None)
    if process is None:
        return {}
    folder = Path(f"/proc/{process.child.pid}")
    backing = sum(os.fstat(descriptor).st_blocks for descriptor in device.system.shared)
    spans = [line.split()[0].split("-") for line in (folder / "maps").read_text().splitlines()
             if "renderD" in line]
    held = {
        "threads": len(os.listdir(folder / "task")),
        "descriptors": len(os.listdir(folder / "fd")),
        "mapped device memory": sum(int(end, 16) - int(start, 16) for start, end in spans),
        "backing": backing,
    }
    if hasattr(device, "kfd"):
        held["free"] = device.kfd.available_bytes(device.node.gpu_id)
    return held


def use(device) -> None:
    data = device.alloc(8)
    data.cpu_view().cast("q")[0] = 1
    program = device.load(kernels.add_number(device.target))
    queue = device.compute_queue()
    commands = queue.commands().exec(program, (data, data, Var("n")), (4, 1, 1))
    commands.bind().replay(n=1).wait()
    device.copy_queue().commands().copy(data, data).submit().wait()
    device.timeline().signal(1)


def test_200_openings_leak_nothing(device_name):
    gc.collect()  # what earlier tests have left in cycles
    for _ in range(3):
        with open_device(device_name) as device:
            use(device)
    with open_device(device_name) as device:
        held = board(device)
    del device
    gc.collect()
    before = threads(), descriptors(), mappings()
    for _ in range(200):
        with open_device(device_name) as device:
            use(device)
    with open_device(device_name) as device:
        assert board(device) == held
    del device
    gc.collect()
    after = threads(), descriptors(), mappings()
    assert after[:2] == before[:2]
    assert after[2] <= before[2] + 3  # Python's own heap may have grown


def test_a_device_that_is_dropped_without_close_ends_its_threads(device_name):
    before = threads()
    device = open_device(device_name)
    use(device)
    assert threads() > before or not device.target.is_cpu
    del device
    gc.collect()
    assert threads() == before


def test_instances_are_independent(device_name):
    with open_device(f"{device_name}:0") as first, open_device(f"{device_name}:1") as second:
        assert (first.name, second.name) == (f"{device_name}:0", f"{device_name}:1")
        use(second)
        first.close()
        use(second)


def test_names_are_case_blind_and_default_to_instance_0(device_name):
    with open_device(device_name.lower()) as device:
        assert device.name == f"{device_name}:0"


@pytest.mark.parametrize("name", ["XYZ", "", "LLVM:x", "LLVM:", "LLVM:-1", "LLVM:16", "LLVM:0:0"])
def test_an_unknown_name_lists_the_known_ones(name):
    with pytest.raises(UnknownDevice) as caught:
        open_device(name)
    assert "LLVM, WEBGPU" in str(caught.value) or "from 0 to 15" in str(caught.value)


@pytest.mark.parametrize("name", ["QCOM", "METAL", "CUDA", "GPU", "WEBGPU", "QCOM:1"])
def test_a_device_without_a_backend_says_so(name):
    with pytest.raises(DeviceNotAvailable, match="has no backend for") as caught:
        open_device(name)
    assert caught.value.remedy
    available, sentence = probe(name)
    assert not available
    assert "no backend" in sentence


def test_every_name_can_be_probed():
    for name in DEVICE_NAMES:
        _, sentence = probe(name)
        assert sentence.endswith(".")
    assert probe("LLVM")[0]
    assert probe("nonsense") == (False, probe("nonsense")[1])


def test_clang_is_looked_for_on_path_with_its_version(monkeypatch, tmp_path):
    monkeypatch.setenv("PATH", str(tmp_path))
    available, sentence = probe("CLANG")
    assert not available
    assert "no clang executable on PATH" in sentence
    assert "apt install clang" in sentence
    with pytest.raises(DeviceNotAvailable, match="no clang executable"):
        open_device("CLANG")
    versioned = tmp_path / "clang-14"
    versioned.write_text("#!/bin/sh\n")
    versioned.chmod(0o755)
    assert probe("CLANG")[0]


@pytest.mark.parametrize("count", ["1", "3"])
def test_tinyhw_threads_sets_the_number_of_threads(monkeypatch, processor_name, count):
    monkeypatch.setenv("TINYHW_THREADS", count)
    before = threads()
    with open_device(processor_name) as device:
        assert device.target.threads == int(count)
        use(device)
        assert threads() - before == int(count) - 1 + 2  # and a thread for each queue


@pytest.mark.parametrize("count", ["0", "x", "-1", "1.5", "100000"])
def test_a_malformed_tinyhw_threads_is_refused(monkeypatch, processor_name, count):
    monkeypatch.setenv("TINYHW_THREADS", count)
    with pytest.raises(ArgumentMismatch, match=f"TINYHW_THREADS is '{count}', not a number from 1"):
        open_device(processor_name)


def test_the_target_is_the_same_every_time(device_name):
    with open_device(device_name) as first, open_device(f"{device_name}:1") as second:
        assert first.target == second.target
        assert hash(first.target) == hash(second.target)
        compilers = {"AMD": "llvm", "NV": "nvrtc"}
        assert first.target.compiler == compilers.get(device_name, device_name.lower())
        assert first.target.features


def test_everything_after_close_is_refused_with_a_sentence(opened):
    device = opened()
    data = device.alloc(8)
    program = device.load(kernels.add_number(device.target))
    queue = device.compute_queue()
    commands = queue.commands().exec(program, (data, data, 1))
    bound = commands.bind()
    device.close()
    device.close()
    uses = [
        lambda: device.alloc(8), lambda: device.load(program.code), device.compute_queue,
        device.copy_queue, device.timeline, lambda: device.timestamps(1), device.synchronize,
        commands.submit, commands.bind, bound.replay,
    ]
    for call in uses:
        with pytest.raises(DeviceClosed, match=f"{device.name}.* is closed"):
            call()


def test_close_waits_for_work_that_makes_progress(opened):
    device = opened()
    data = device.alloc(8)
    values = data.cpu_view().cast("q")
    values[0] = 0
    program = device.load(kernels.add_number(device.target))
    commands = device.compute_queue().commands()
    for _ in range(10_000):
        commands.exec(program, (data, data, 1), (1, 1, 1))
    commands.submit()
    device.close()
    assert values[0] == 10_000


def test_close_after_a_hang_ends_the_queue(opened):
    device = opened()
    never = device.timeline()
    point = device.compute_queue().commands().wait(never.point(1)).submit()
    listed = device.compute_queue().commands().wait(never.point(1)).bind().replay()
    flag = device.alloc(8)
    flag.cpu_view()[:] = bytes(8)
    device.copy_queue().commands().poll(flag, 1).submit()
    with pytest.raises(HardwareError):
        point.wait(timeout_ms=1)
    start, before = time.monotonic(), threads()
    device.close()
    assert time.monotonic() - start < 5
    assert threads() < before or not device.target.is_cpu
    assert not point.done
    assert not listed.done


def test_the_same_code_object_gives_the_same_program(device):
    code = kernels.add_number(device.target)
    assert device.load(code) is device.load(code)


@pytest.mark.parametrize(
    ("change", "kind", "sentence"),
    [
        ({"arch": "gfx000"}, ArgumentMismatch, "is for gfx000"),
        ({"entry": 1 << 20}, MalformedInput, "enters at byte 1048576"),
        ({"entry": -1}, MalformedInput, "enters at byte -1"),
        ({"image": b""}, MalformedInput, "image of 0"),
    ],
)
def test_a_malformed_code_object_is_refused(device, change, kind, sentence):
    import dataclasses

    code = dataclasses.replace(kernels.add_number(device.target), **change)
    with pytest.raises(kind, match=sentence):
        device.load(code)


def test_a_relocation_outside_the_image_is_refused(device):
    import dataclasses

    from compiler.code_object import Relocation

    code = kernels.add_number(device.target)
    size = len(code.image)
    for offset in (-1, size - 7, 1 << 40):
        wrong = dataclasses.replace(code, relocations=(Relocation(offset, 0),))
        with pytest.raises(MalformedInput, match=f"relocates 8 bytes at {offset}"):
            device.load(wrong)


def test_a_forked_child_is_refused_and_the_parent_unharmed(device):
    data = device.alloc(8)
    values = data.cpu_view().cast("q")
    values[0] = 0
    program = device.load(kernels.add_number(device.target))
    queue = device.compute_queue()
    commands = queue.commands().exec(program, (data, data, 1), (1, 1, 1))
    bound, late = commands.bind(), device.timeline().point(1)
    bound.replay().wait()
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        answers = []
        for call in (
            commands.submit, bound.replay, lambda: device.alloc(8), device.compute_queue,
            device.synchronize, lambda: late.wait(10), lambda: device.load(program.code),
        ):
            try:
                call()
                answers.append("nothing raised")
            except ForkedProcess as error:
                answers.append(f"{error.code} {error}")
            except BaseException as error:
                answers.append(repr(error))
        try:  # a device of its own works
            with open_device(device.name) as own:
                use(own)
            device.close()
        except BaseException as error:
            answers.append(repr(error))
        os.write(writing, "\n".join(answers).encode())
        os._exit(0)
    os.close(writing)
    with os.fdopen(reading) as pipe:
        answers = pipe.read().split("\n")
    _, status = os.waitpid(child, 0)
    assert status == 0
    assert len(answers) == 7
    for answer in answers:
        assert answer.startswith("HW301"), answer
        assert str(os.getpid()) in answer
        assert "Open the device in the child" in answer
    bound.replay().wait()
    assert values[0] == 2


def run_python(program: str, **options) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", textwrap.dedent(program)], cwd=ROOT, capture_output=True,
        text=True, timeout=60, **options,
    )


@pytest.mark.parametrize("last", ["pass", "point.wait(100)", "sys.exit(3)", "device.close()"])
def test_a_process_ends_quietly_without_close(device_name, last):
    done = run_python(f"""
        import sys
        from drivers import open_device
        device = open_device("{device_name}")
        queue, never, data = device.compute_queue(), device.timeline(), device.alloc(10 << 20)
        point = queue.commands().barrier().submit()
        queue.commands().wait(never.point(1)).submit()
        {last}
    """)
    assert done.stderr == ""
    assert done.returncode == (3 if "exit" in last else 0)


def test_opening_a_device_imports_no_compiler(device_name):
    program = f"""
        import sys
        from drivers import open_device
        with open_device("{device_name}") as device:
            device.compute_queue().commands().barrier().submit().wait()
        print("tinyhw" in sys.modules, "llvmlite" in sys.modules)
    """
    run_python(program)  # the native image is in the cache now
    assert run_python(program).stdout == "False False\n"


def test_ctrl_c_interrupts_a_wait(device_name):
    program = textwrap.dedent(f"""
        from drivers import open_device
        with open_device("{device_name}") as device:
            queue, never = device.compute_queue(), device.timeline()
            point = queue.commands().wait(never.point(1)).submit()
            print("waiting", flush=True)
            try:
                point.wait(timeout_ms=50_000)
            except KeyboardInterrupt:
                print("interrupted", flush=True)
    """)
    with subprocess.Popen(
        [sys.executable, "-c", program], cwd=ROOT, stdout=subprocess.PIPE, text=True
    ) as child:
        assert child.stdout is not None
        assert child.stdout.readline() == "waiting\n"
        time.sleep(0.05)
        child.send_signal(signal.SIGINT)
        assert child.stdout.readline() == "interrupted\n"
        assert child.wait(timeout=20) == 0
