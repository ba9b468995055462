"""Schedules on a real device: results, counters, what DEBUG prints, failures."""

from __future__ import annotations

import gc

import numpy as np
import pytest

from compiler.errors import ToolFailed
from tinyhw import Context, GlobalCounters, Tensor, device
from tinyhw.context import ansistrip
from tinyhw.device import Device


def array(*shape: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal(shape).astype(np.float32)


@pytest.fixture
def counters():
    GlobalCounters.reset()
    return GlobalCounters


def test_the_front_pages_matrix_product_is_one_kernel_without_a_cube(counters):
    n = 256
    a, b = Tensor(array(n, n)).realize(), Tensor(array(n, n, seed=1)).realize()
    used = counters.mem_used
    c = (a.reshape(n, 1, n) * b.T.reshape(1, n, n)).sum(axis=2).realize()
    assert counters.kernel_count == 1
    assert counters.mem_used - used < 4 * n * n * 4
    assert counters.global_ops >= 2 * n**3
    np.testing.assert_allclose(c.numpy(), a.numpy() @ b.numpy(), rtol=1e-3, atol=1e-3)


def test_a_tensor_may_be_given_twice():
    a = Tensor(np.ones(3, np.float32)) + 1
    b = a.sum()
    a.realize(b, a, b)
    assert a.tolist() == [2, 2, 2] and b.item() == 6


def test_realizing_again_runs_nothing(counters):
    x = (Tensor(array(4)) + 1).realize()
    ran = counters.kernel_count
    x.realize()
    x.reshape(2, 2).realize()
    assert counters.kernel_count == ran == 1


def test_what_others_computed_is_not_computed_again(counters):
    x = Tensor(array(8, 8))
    y = x @ x
    z = (y + 1).exp()
    y.realize()
    z.realize()
    assert counters.kernel_count == 2


def test_a_write_happens_once_whoever_realizes_it(counters):
    x = Tensor(array(4)).realize()
    before = x.numpy()
    x.assign(x + 1)
    y, z = x * 2, x * 3
    y.realize()
    z.realize()
    x.realize()
    np.testing.assert_array_equal(x.numpy(), before + 1)
    np.testing.assert_array_equal(y.numpy(), (before + 1) * 2)
    assert counters.kernel_count == 3


def test_more_kernels_than_the_ring_has_records():
    x = Tensor(np.eye(4, dtype=np.float32)).realize()
    total = x
    for _ in range(1500):
        total = total @ x
    np.testing.assert_array_equal(total.numpy(), np.eye(4))


def test_tensors_go_from_device_to_device():
    data = array(5, 6)
    x = Tensor(data, device="LLVM")
    there = (x.T + 1).to("LLVM:1") * 2
    assert there.device == "LLVM:1"
    back = there.to("LLVM") - 1
    np.testing.assert_allclose(back.numpy(), (data.T + 1) * 2 - 1, rtol=1e-6)


def test_debug_2_prints_a_line_for_each_kernel(capsys):
    x = Tensor(array(64, 64)).realize()
    with Context(DEBUG=2):
        ((x @ x).softmax() + 1).realize()
    lines = ansistrip(capsys.readouterr().out).splitlines()
    assert len(lines) == 4
    for line in lines:
        assert line.startswith(f"*** {x.device}") and " us " in line
        assert "GFLOP/s" in line and "GB/s" in line and "test_realize.py:" in line
    assert GlobalCounters.time_sum_s > 0


def test_a_schedule_that_does_not_compile_leaves_everything_as_it_was(monkeypatch):
    x = Tensor(array(7)).realize()
    before = x.numpy()
    x.assign(x + 1)
    late = (x.reshape(7, 1) * x.reshape(1, 7)).sum(1).cos()

    compiled = []
    compile_kernel = device.compile_kernel

    def second_fails(*arguments, **named):
        compiled.append(1)
        if len(compiled) == 2:
            raise ToolFailed("no")
        return compile_kernel(*arguments, **named)

    runtime = Device.runtime(x.device)
    monkeypatch.setattr(runtime, "_programs", {})
    with monkeypatch.context() as patch, pytest.raises(ToolFailed):
        patch.setattr(device, "compile_kernel", second_fails)
        late.realize()
    np.testing.assert_array_equal(x.numpy(), before + 1)  # once, and only now
    assert late.shape == (7,) and np.isfinite(late.numpy()).all()


def test_memory_of_temporaries_comes_back():
    opened = Device["LLVM"]
    x = Tensor(array(128, 128), device="LLVM").realize()
    gc.collect()
    opened.synchronize()
    before = opened.memory_used
    y = x
    for _ in range(10):
        y = (y @ x) * 0.01
    y.realize()
    opened.synchronize()
    assert opened.memory_used - before <= 128 * 128 * 4 + (1 << 16)
