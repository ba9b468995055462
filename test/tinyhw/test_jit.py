"""TinyJit: what is captured and replayed, and what it refuses."""

from __future__ import annotations

import gc
import resource

import numpy as np
import pytest

from tinyhw import Context, GlobalCounters, Tensor, TinyJit, Variable
from tinyhw.device import Device
from tinyhw.errors import JitError

PAGE_BYTES = resource.getpagesize()


def resident_bytes() -> int:
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * PAGE_BYTES


def vector(*values: float) -> Tensor:
    return Tensor(np.array(values, np.float32))


# ---- replaying ----


def test_inputs_change_and_the_function_runs_twice():
    runs = []

    @TinyJit
    def twice_plus_one(x: Tensor) -> Tensor:
        runs.append(1)
        return (x * 2 + 1).realize()

    for i in range(6):
        assert twice_plus_one(vector(i, -i)).tolist() == [2 * i + 1, -2 * i + 1]
    assert len(runs) == 2 and twice_plus_one.captured
    assert twice_plus_one.__name__ == "twice_plus_one"


def test_results_are_the_same_tensors_overwritten_by_the_next_call():
    jit = TinyJit(lambda x: x + 1)
    results = [jit(vector(i)) for i in range(5)]
    assert results[2] is results[3] is results[4]
    kept = jit(vector(10)).clone().realize()
    jit(vector(20))
    assert kept.item() == 11 and results[3].item() == 21


def test_results_need_not_be_realized_by_the_function():
    jit = TinyJit(lambda x: {"sum": x.sum(), "parts": [x + 1, (x * 2, None)]})
    for i in range(4):
        result = jit(vector(i, 2))
        assert result["sum"].item() == i + 2
        assert result["parts"][0].tolist() == [i + 1, 3]
        assert result["parts"][1][0].tolist() == [2 * i, 4]


def test_inputs_stand_anywhere_in_the_arguments():
    jit = TinyJit(lambda a, *, pair, named: a + pair[0] * 2 + pair[1] + named["x"])
    for i in range(4):
        a, b, c, d = (vector(i + k) for k in range(4))
        assert jit(a, pair=[b, c], named={"x": d}).item() == 5 * i + 7


def test_inputs_that_are_computed_or_parts_are_made_whole():
    jit = TinyJit(lambda x: x.sum(1))
    data = np.arange(40, dtype=np.float32).reshape(10, 4)
    whole = Tensor(data).realize()
    for i in range(5):
        np.testing.assert_array_equal(jit(whole[i : i + 2]).numpy(), data[i : i + 2].sum(1))
        np.testing.assert_array_equal(jit(whole[i : i + 2] * 2).numpy(), data[i : i + 2].sum(1) * 2)
    assert jit(Tensor.ones(2, 4)).tolist() == [4, 4]
    assert jit(whole.permute(1, 0)[:2, :4].permute(1, 0).permute(1, 0)).shape == (2,)


def test_what_is_assigned_in_it_is_assigned_by_every_replay():
    weight, steps = vector(1, 2), Tensor([0])

    @TinyJit
    def step(x: Tensor) -> Tensor:
        loss = (weight * x).sum()
        weight.assign(weight - x)
        steps.assign(steps + 1)  # never read in here
        return loss

    expected = np.array([1.0, 2.0])
    for i in range(6):
        assert step(vector(i, 1)).item() == pytest.approx(float((expected * [i, 1]).sum()))
        expected -= [i, 1]
    assert weight.tolist() == expected.tolist()
    assert steps.item() == 6


def test_an_input_can_be_written():
    @TinyJit
    def halve(x: Tensor) -> Tensor:
        x.assign(x / 2)
        return x.sum()

    for i in range(5):
        x = vector(i, 4).realize()
        assert halve(x).item() == i / 2 + 2
        assert x.tolist() == [i / 2, 2]


def test_random_numbers_differ_from_replay_to_replay():
    Tensor.manual_seed(3)
    jit = TinyJit(lambda: Tensor.rand(8).realize())
    drawn = [tuple(jit().tolist()) for _ in range(6)]
    assert len(set(drawn)) == 6
    Tensor.manual_seed(3)
    assert tuple(jit().tolist()) == drawn[0]


def test_pending_writes_and_reads_outside_keep_their_order():
    state = vector(1).realize()
    jit = TinyJit(lambda x: state.assign(state + x).sum())
    for _ in range(2):
        jit(vector(1))
    before = state * 10  # pending: sees 3
    jit(vector(1))
    assert before.item() == 30 and state.item() == 4
    state.assign(state * 100)  # pending: happens before the next replay
    assert jit(vector(1)).item() == 401


def test_a_training_step_goes_as_without_jit():
    def losses(wrap) -> list[float]:
        Tensor.manual_seed(0)
        weight = Tensor.rand(4, 3, requires_grad=True)
        x = Tensor(np.random.default_rng(0).standard_normal((8, 4)).astype(np.float32))

        def step(x: Tensor) -> Tensor:
            weight.grad = None
            loss = (x @ weight).relu().square().mean()
            loss.backward()
            weight.assign(weight.detach() - weight.grad * 0.1)
            return loss.realize(weight)

        function = wrap(step)
        return [function(x).item() for _ in range(6)]

    assert losses(TinyJit) == pytest.approx(losses(lambda f: f), rel=1e-5)


def test_methods_have_a_capture_for_each_object():
    class Model:
        def __init__(self, factor: float) -> None:
            self.weight = vector(factor).realize()

        @TinyJit
        def forward(self, x: Tensor) -> Tensor:
            return x * self.weight

    models = [Model(2), Model(3)]
    for i in range(4):
        assert [m.forward(vector(i)).item() for m in models] == [2 * i, 3 * i]
    assert models[0].forward is models[0].forward


def test_reset_captures_anew():
    factor = [2.0]
    jit = TinyJit(lambda x: x * factor[0])
    for _ in range(3):
        jit(vector(1))
    factor[0] = 5.0
    assert jit(vector(1)).item() == 2
    jit.reset()
    assert not jit.captured
    assert [jit(vector(1)).item() for _ in range(3)] == [5, 5, 5]


def test_jit_0_always_runs_the_function():
    runs = []
    jit = TinyJit(lambda x: runs.append(1) or (x + 1).realize())
    with Context(JIT=0):
        for _ in range(5):
            jit(vector(1))
    assert len(runs) == 5 and not jit.captured


def test_one_jit_inside_another_becomes_part_of_it():
    inner = TinyJit(lambda x: (x + 1).realize())
    outer = TinyJit(lambda x: inner(x) * 2)
    assert [outer(vector(i)).item() for i in range(5)] == [2, 4, 6, 8, 10]


def test_counters_count_replayed_kernels():
    jit = TinyJit(lambda x: ((x + 1).realize() * 2).realize())
    for i in range(3):
        GlobalCounters.reset()
        jit(vector(i).realize())
        assert GlobalCounters.kernel_count == 2


def test_copies_between_devices_are_replayed():
    if "CLANG" not in Device.get_available_devices():
        pytest.skip("clang is not installed")
    jit = TinyJit(lambda x: ((x * 2).to("CLANG") + 1).to("LLVM") * 3)
    for i in range(5):
        result = jit(Tensor(np.array([i], np.float32), device="LLVM"))
        assert result.device == "LLVM" and result.item() == (2 * i + 1) * 3


def test_a_replay_copies_to_a_device_that_has_read_the_last_copy():
    """The other device is kept busy with each copy while the next call begins."""
    n = 400
    eye = Tensor.eye(n, device="LLVM:1").contiguous().realize()

    @TinyJit
    def slowly_moved(x):
        y = (x * 2).realize().to("LLVM:1")
        for _ in range(6):
            y = (y @ eye).contiguous()
        return y

    kept = []
    for i in range(12):
        moved = slowly_moved(Tensor(np.full((n, n), i, np.float32), device="LLVM").realize())
        kept.append((moved + 0).realize())
    for i, tensor in enumerate(kept):
        np.testing.assert_array_equal(tensor.numpy(), 2 * i)


# ---- Variables ----


def test_variables_change_from_call_to_call():
    n = Variable("n", 1, 8)
    data = np.arange(8, dtype=np.float32)
    whole = Tensor(data).realize()
    jit = TinyJit(lambda x, size: (x[:size] * 2).sum())
    for value in (3, 5, 8, 1):
        assert jit(whole, n.bind(value)).item() == data[:value].sum() * 2


def test_the_extent_of_an_input_can_be_a_variable():
    n = Variable("n", 1, 8)
    data = np.arange(8, dtype=np.float32)
    whole = Tensor(data).realize()
    jit = TinyJit(lambda x: x.sum())
    for value in (3, 5, 8, 1):
        assert jit(whole[: n.bind(value)]).item() == data[:value].sum()


def test_a_variable_bound_inside_is_refused():
    n = Variable("n", 1, 8)
    jit = TinyJit(lambda x: (x[: n.bind(3)] + 1).sum())
    x = Tensor.arange(8).realize()
    jit(x)
    with pytest.raises(JitError, match="Variable n is bound inside"):
        jit(x)


# ---- what it refuses ----


def captured(function, *args):
    jit = TinyJit(function)
    for _ in range(2):
        jit(*args)
    return jit


@pytest.mark.parametrize("read", ["numpy", "item", "tolist"])
def test_reading_a_tensor_during_the_capture_is_refused(read):
    jit = TinyJit(lambda x: x + float(getattr((x * 2).sum(), read)()))
    jit(vector(1))
    with pytest.raises(JitError, match="read while TinyJit captures"):
        jit(vector(1))
    assert vector(4).item() == 4  # reading works again


def test_another_shape_dtype_or_device_is_refused():
    jit = captured(lambda x: x + 1, vector(1, 2))
    with pytest.raises(JitError, match=r"Argument 0 has the shape \(3\), .* had \(2\)"):
        jit(vector(1, 2, 3))
    with pytest.raises(JitError, match=r"dtype dtypes\.int32, .* had dtypes\.float32"):
        jit(Tensor(np.array([1, 2], np.int32)))
    with pytest.raises(JitError, match=r"device LLVM:1, .* had \w+\."):
        jit(Tensor(np.ones(2, np.float32), device="LLVM:1"))
    assert jit(vector(5, 6)).tolist() == [6, 7]


def test_the_same_memory_twice_is_refused():
    x, y = vector(1).realize(), vector(2).realize()
    jit = captured(lambda a, b: a + b, x, y)
    with pytest.raises(JitError, match=r"Argument 1 .*same memory"):
        jit(x, x)
    fresh = TinyJit(lambda a, b: a + b)
    fresh(x, x)
    with pytest.raises(JitError, match=r"Argument 1 .*same memory"):
        fresh(x, x)


def test_other_arguments_must_stay_as_they_were():
    x = vector(1)
    jit = captured(lambda x, n, **named: x * n, x, 3)
    for args, named in (((x, 4), {}), ((x, 3.0), {}), ((x,), {}), ((x, 3), {"k": 1}), ((x, x), {})):
        with pytest.raises(JitError, match="cannot be replayed"):
            jit(*args, **named)
    assert jit(vector(2), 3).item() == 6


def test_nothing_captured_is_refused():
    state = vector(1).realize()
    jit = TinyJit(lambda: state)
    jit()
    with pytest.raises(JitError, match="ran no kernel"):
        jit()


def test_returning_an_input_is_refused():
    jit = TinyJit(lambda x: (x, (x + 1).realize()))
    jit(vector(1))
    with pytest.raises(JitError, match="returns one of its inputs"):
        jit(vector(1))


def test_writing_to_a_part_of_storage_is_refused():
    whole = vector(1, 2, 3, 4).realize()
    jit = TinyJit(lambda x: x.assign(x + 1).sum())
    jit(whole[:2])
    with pytest.raises(JitError, match="is assigned to, but is only a part"):
        jit(whole[:2])


def test_numpy_arguments_are_refused():
    jit = TinyJit(lambda x, a: x + Tensor(a))
    jit(vector(1), np.ones(1, np.float32))
    with pytest.raises(JitError, match="NumPy array"):
        jit(vector(1), np.ones(1, np.float32))


def test_an_error_in_the_function_leaves_no_capture_behind():
    fail = [False]

    def function(x: Tensor) -> Tensor:
        if fail[0]:
            raise ValueError("mine")
        return x + 1

    jit = TinyJit(function)
    jit(vector(1))
    fail[0] = True
    with pytest.raises(ValueError, match="mine"):
        jit(vector(1))
    fail[0] = False
    assert [jit(vector(i)).item() for i in range(3)] == [1, 2, 3]


# ---- memory ----


def test_replays_do_not_grow_memory():
    jit = TinyJit(lambda x: (x + 1).realize())
    inputs = [vector(i, i).realize() for i in range(4)]
    for i in range(3000):
        jit(inputs[i & 3])
    jit(inputs[0]).numpy()
    before = resident_bytes()
    for i in range(20_000):
        jit(inputs[i & 3])
    assert jit(inputs[2]).tolist() == [3, 3]
    assert resident_bytes() - before < 1 << 20


def test_temporaries_of_a_capture_share_memory_and_go_with_it():
    device = Device["LLVM"]
    x = Tensor.ones(256, 256, device="LLVM").contiguous().realize()

    def chain(x: Tensor) -> Tensor:
        for _ in range(12):
            x = (x @ x) * 0.01
        return x

    gc.collect()
    device.synchronize()
    before = device.memory_used
    jit = captured(chain, x)
    gc.collect()
    device.synchronize()
    assert device.memory_used - before < 5 * (256 * 256 * 4)
    del jit
    gc.collect()
    device.synchronize()
    assert device.memory_used - before < 1 << 17
