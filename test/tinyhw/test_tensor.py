"""Making tensors, reading them, dtypes, devices, Variables, and what a repr says."""

from __future__ import annotations

import copy
import pickle
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from compiler.dtype import DType
from compiler.errors import TinyhwError
from compiler.ir import Op
from tinyhw import Device, Tensor, Variable, dtypes, errors, storage
from tinyhw.errors import (
    DeviceError,
    DtypeError,
    NotSupported,
    ShapeError,
    TensorError,
    VariableError,
)
from tinyhw.variable import unbind

DATA: list[Any] = [3, 2.5, True, [1, 2], [[1.5, 2], [3, 4]], [], [[]], [[True], [False]], (1, 2)]


@pytest.mark.parametrize("data", DATA, ids=str)
def test_numbers_and_lists(data: Any) -> None:
    expected = np.array(data)
    t = Tensor(data)
    assert t.shape == expected.shape
    assert t.tolist() == expected.tolist()
    kinds = {"b": dtypes.bool, "i": dtypes.int32, "f": dtypes.float32}
    assert t.dtype is kinds[expected.dtype.kind]


@pytest.mark.parametrize("dtype", [d.name for d in dtypes.all if d not in storage.AS_BITS])
def test_numpy_arrays_keep_their_type(dtype: str) -> None:
    x = np.array([[0, 1, 2], [3, 100, 5]]).astype(dtype)
    t = Tensor(x)
    assert t.dtype.name == dtype
    back = t.numpy()
    assert back.dtype == x.dtype
    np.testing.assert_array_equal(back, x)
    np.testing.assert_array_equal(Tensor(x.T[::-1]).numpy(), x.T[::-1])
    np.testing.assert_array_equal(np.asarray(t), x)


def test_a_tensor_does_not_change_with_its_array_nor_the_other_way_round() -> None:
    x = np.zeros(3, np.float32)
    t = Tensor(x)
    x[0] = 1
    assert t.tolist() == [0, 0, 0]
    t.numpy()[0] = 5
    assert t.tolist() == [0, 0, 0]


def test_bytes_none_and_tensors() -> None:
    assert Tensor(b"\x01\x02\xff").tolist() == [1, 2, 255]
    assert Tensor(np.float32([1.5, 2]).tobytes(), dtype="float32").tolist() == [1.5, 2]
    assert Tensor(b"").shape == (0,)
    assert Tensor(None).shape == (0,)
    t = Tensor([1.0, 2.0])
    assert Tensor(t).tolist() == [1, 2]
    assert Tensor(t, dtype="int32").tolist() == [1, 2]
    assert Tensor([t, t + 1]).tolist() == [[1, 2], [2, 3]]
    assert Tensor(np.float32(2.5)).dtype is dtypes.float32
    assert Tensor(np.arange(4).astype(">i4")).tolist() == [0, 1, 2, 3]


def test_bfloat16() -> None:
    t = Tensor([1.0, 1.00390625, 3.14159], dtype=dtypes.bfloat16)
    assert t.tolist() == [1.0, 1.0, 3.140625]
    assert (t + t).tolist() == [2.0, 2.0, 6.28125]
    assert t.bitcast("uint16").tolist() == [0x3F80, 0x3F80, 0x4049]
    with pytest.raises(DtypeError, match="no bfloat16"):
        t.data()


def test_to_takes_a_device_a_type_or_both() -> None:
    t = Tensor([1.5, 2.5], device="LLVM")
    assert t.to() is t and t.to("LLVM") is t and t.to(dtypes.float32) is t
    assert t.to(dtypes.float16).dtype is t.to(dtype="float16").dtype is dtypes.float16
    moved = t.to("CLANG", dtypes.int32)
    assert (moved.device, moved.dtype, moved.tolist()) == ("CLANG", dtypes.int32, [1, 2])
    assert t.to(moved).device == "CLANG" and t.to(moved).dtype is dtypes.int32
    assert t.is_leaf and t.requires_grad_().is_leaf and not (t * 2).is_leaf


@pytest.mark.parametrize("dtype", dtypes.fp8s, ids=lambda d: d.name)
def test_eight_bit_floats(dtype: DType) -> None:
    t = Tensor([1.0, 1.06, -3.14159, 0.01], dtype=dtype)
    assert t.tolist() == [1.0, 1.0, -3.25 if dtype is dtypes.fp8e4m3 else -3.0, 0.009765625]
    assert t.numpy().dtype == np.float32
    assert (t + t).dtype is (t * 2).dtype is (t + Tensor([1, 2, 3, 4])).dtype is dtype
    assert (t + Tensor(2.5, dtype="float16")).dtype is dtypes.float16
    full = Tensor.full((300,), 16, dtype=dtype)
    assert full.mean().item() == 16 and full.sum(dtype="float32").item() == 4800
    assert full.sum().item() == (448 if dtype is dtypes.fp8e4m3 else 5120)
    assert full.softmax(0).sum(dtype="float32").item() == pytest.approx(1, rel=0.2)
    assert full.isinf().any().item() is False
    assert Tensor.rand(50, dtype=dtype).max().item() < 1
    with pytest.raises(DtypeError, match=f"no {dtype.name}"):
        t.data()


def test_reading() -> None:
    t = Tensor([[1, 2], [3, 4]])
    assert t.data().tolist() == [[1, 2], [3, 4]]
    assert t.T.data().tolist() == [[1, 3], [2, 4]]
    assert Tensor(5).item() == 5 and Tensor([[2.5]]).item() == 2.5
    assert Tensor(5).data().tolist() == 5
    assert Tensor.zeros(0, 2).tolist() == []
    with pytest.raises(ShapeError, match=r"exactly one element.*\(2, 2\)"):
        t.item()
    with pytest.raises(DtypeError, match="neither true nor false"):
        bool(t)
    with pytest.raises(DtypeError, match="no length"):
        len(Tensor(1))
    with pytest.raises(NotSupported, match="any"):
        1 in t  # noqa: B015


CONSTANTS: list[tuple[str, Callable[[], Tensor], Any]] = [
    ("zeros", lambda: Tensor.zeros(2, 3), np.zeros((2, 3), np.float32)),
    ("ones", lambda: Tensor.ones((2,), dtype="int8"), np.ones(2, np.int8)),
    ("full", lambda: Tensor.full((2, 2), 7), np.full((2, 2), 7, np.int32)),
    ("full scalar", lambda: Tensor.full((), 2.5), np.float32(2.5)),
    ("arange", lambda: Tensor.arange(5), np.arange(5, dtype=np.int32)),
    ("arange step", lambda: Tensor.arange(9, 2, -2), np.arange(9, 2, -2, dtype=np.int32)),
    ("arange float", lambda: Tensor.arange(0.5, 3, 0.5), np.arange(0.5, 3, 0.5, dtype=np.float32)),
    ("arange none", lambda: Tensor.arange(5, 5), np.zeros(0, np.int32)),
    ("arange typed", lambda: Tensor.arange(3, dtype="float64"), np.arange(3.0)),
    ("arange large", lambda: Tensor.arange(2**40, 2**40 + 2, dtype="int64"),
     np.arange(2**40, 2**40 + 2)),
    ("linspace", lambda: Tensor.linspace(1, 2, 5), np.linspace(1, 2, 5, dtype=np.float32)),
    ("linspace one", lambda: Tensor.linspace(1, 2, 1), np.float32([1])),
    ("eye", lambda: Tensor.eye(2, 3), np.eye(2, 3, dtype=np.float32)),
    ("zeros_like", lambda: Tensor([[1, 2]]).zeros_like(), np.zeros((1, 2), np.int32)),
    ("ones_like", lambda: Tensor([1.5]).ones_like(), np.ones(1, np.float32)),
    ("full_like", lambda: Tensor([1.5]).full_like(3, dtype="int64"), np.full(1, 3)),
]  # fmt: skip


@pytest.mark.parametrize(("name", "make", "expected"), CONSTANTS, ids=[c[0] for c in CONSTANTS])
def test_constants_and_ranges(name: str, make: Callable[[], Tensor], expected: Any) -> None:
    found = make().numpy()
    assert found.dtype == expected.dtype and found.shape == expected.shape
    np.testing.assert_allclose(found, expected, rtol=1e-6)


def test_empty_is_storage() -> None:
    t = Tensor.empty(2, 3)
    assert t.node.base.op is Op.BUFFER and t.numpy().shape == (2, 3)
    t.assign(Tensor.ones(2, 3))
    assert t.tolist() == [[1, 1, 1], [1, 1, 1]]


@pytest.mark.parametrize("source", ["float32", "int32", "uint8", "bool", "float16", "int64"])
def test_casts(source: str) -> None:
    x = np.array([0, 1, 2, 100]).astype(source)
    for target in ("float32", "int8", "uint64", "bool", "float64", "float16"):
        np.testing.assert_array_equal(Tensor(x).cast(target).numpy(), x.astype(target))


def test_casts_by_name_and_bitcasts() -> None:
    t = Tensor([1.5, -2.5])
    assert [t.half().dtype, t.double().dtype, t.int().dtype, t.long().dtype, t.bool().dtype] == [
        dtypes.float16, dtypes.float64, dtypes.int32, dtypes.int64, dtypes.bool]  # fmt: skip
    assert t.int().tolist() == [1, -2]
    assert t.bitcast("int32").tolist() == np.float32([1.5, -2.5]).view(np.int32).tolist()
    assert t.view(dtypes.int32).tolist() == t.bitcast("int32").tolist()
    for refused in (t[:1].bitcast, t[0].bitcast):
        with pytest.raises(DtypeError, match="does not fill whole elements"):
            refused("int64")
    with pytest.raises(DtypeError, match="'float33' is no element type"):
        t.cast("float33")


def test_default_types_can_be_changed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dtypes, "default_float", dtypes.float64)
    monkeypatch.setattr(dtypes, "default_int", dtypes.int64)
    assert Tensor([1.5]).dtype is dtypes.float64
    assert Tensor([1]).dtype is dtypes.int64
    assert (Tensor([1]) / 2).dtype is dtypes.float64


def test_devices() -> None:
    t = Tensor([1.0, 2.0])
    assert t.device == Device.DEFAULT
    assert Tensor(1.0, device="clang").device == "CLANG"
    assert Tensor.zeros(2, device="LLVM").device == "LLVM"
    with pytest.raises(DeviceError, match="'TOASTER'"):
        Tensor([1], device="TOASTER")
    other = "CLANG" if t.device != "CLANG" else "LLVM"
    moved = t.to(other)
    assert moved.device == other
    assert Tensor.ones(2).to(other).device == other
    with pytest.raises(DeviceError, match=f"{t.device} and {other}"):
        t + moved


def test_a_repr_computes_nothing() -> None:
    t = Tensor([1.0, 2.0]) + 1
    assert repr(t) == f"<Tensor (2) float32 on {Device.DEFAULT}, lazy>"
    assert t.node.base.op is Op.ADD
    t.realize()
    assert "realized" in repr(t)
    bound = Variable("n", 1, 5).bind(3)
    assert "(n=3)" in repr(Tensor.ones(5).shrink([(0, bound)]))


def test_an_op_remembers_the_users_line() -> None:
    t = Tensor([[1.25, 2.0]]).softmax(); line = sys._getframe().f_lineno  # noqa: E702
    assert t.node.origin == (str(Path(__file__)), line)


def test_what_is_wrong_is_named() -> None:
    with pytest.raises(ShapeError, match="rectangular"):
        Tensor([[1, 2], [3]])
    with pytest.raises(DtypeError, match="not of set"):
        Tensor({1})  # type: ignore[arg-type]
    with pytest.raises(DtypeError, match="complex"):
        Tensor(np.zeros(2, complex))
    with pytest.raises(DtypeError, match="must hold numbers"):
        Tensor(["a"])
    with pytest.raises(DtypeError, match="no whole number"):
        Tensor(b"123", dtype="float32")
    with pytest.raises(ShapeError, match="negative extent"):
        Tensor.zeros(2, -1)
    with pytest.raises(ShapeError, match="step other than 0"):
        Tensor.arange(0, 5, 0)


def test_errors_have_codes_of_their_own_and_one_base() -> None:
    kinds = [k for k in vars(errors).values() if isinstance(k, type) and issubclass(k, TensorError)]
    assert len({k.code for k in kinds}) == len(kinds)
    assert all(issubclass(k, TinyhwError) for k in kinds)


def test_copies_and_pickles_are_tensors_of_their_own() -> None:
    for dtype in ("float32", "bfloat16", "int64"):
        t = Tensor([1, 2], dtype=dtype, requires_grad=False)
        for other in (copy.deepcopy(t), pickle.loads(pickle.dumps(t))):
            assert other.dtype is t.dtype and other.requires_grad is False
            t[0] = 5
            assert other.tolist() == [1, 2]
            t[0] = 1
    w = copy.deepcopy(Tensor([1.0, 2.0], requires_grad=True))
    (w * 2).sum().backward()
    assert w.grad.tolist() == [2, 2]


# ---- Variables ----


def test_variables_check_their_values() -> None:
    n = Variable("n", 1, 10)
    assert (n.name, n.min, n.max) == ("n", 1, 10)
    assert unbind(n.bind(3)) == (n.node, 3)
    for wrong, says in [(0, r"0, outside \[1, 10\]"), (11, "11"), (2.0, "not an integer")]:
        with pytest.raises(VariableError, match=says):
            n.bind(wrong)  # type: ignore[arg-type]
    with pytest.raises(VariableError, match="min <= max"):
        Variable("n", 5, 1)
    with pytest.raises(VariableError, match="identifier"):
        Variable("a b", 1, 2)


@pytest.mark.parametrize("value", [1, 4, 6])
def test_shapes_with_a_variable(value: int) -> None:
    x = np.arange(24, dtype=np.float32).reshape(6, 4)
    n = Variable("n", 1, 6).bind(value)
    part = Tensor(x)[:n]
    assert part.shape == (n, 4)
    np.testing.assert_allclose(part.sum(0).numpy(), x[:value].sum(0))
    np.testing.assert_allclose((part * 2 + 1).sum().item(), (x[:value] * 2 + 1).sum())
    np.testing.assert_allclose(part.mean(0).numpy(), x[:value].mean(0), rtol=1e-6)
    weights = np.arange(24, dtype=np.float32).reshape(4, 6)
    columns = Tensor(weights)[:, :n]
    np.testing.assert_allclose((columns @ part).numpy(), weights[:, :value] @ x[:value])
    flat = part.reshape(n * 4)
    np.testing.assert_allclose(flat.max().item(), x[:value].max())
    assert Tensor.ones(1).expand(n).sum().item() == value
    assert Tensor.arange(n).sum().item() == sum(range(value))
    with pytest.raises(ShapeError, match="depends on a Variable"):
        part.numpy()


def test_writes_at_a_variables_position() -> None:
    cache = Tensor.zeros(6, 2).contiguous().realize()
    i = Variable("i", 0, 5)
    for value in (3, 1):
        at = i.bind(value)
        cache[at : at + 1].assign(Tensor([[1.0 + value, 2.0]])).realize()
    expected = np.zeros((6, 2))
    expected[3], expected[1] = [4, 2], [2, 2]
    np.testing.assert_array_equal(cache.numpy(), expected)
    assert cache[: i.bind(3) + 1].sum().item() == 10


def test_a_position_may_be_a_variable() -> None:
    i = Variable("i", 0, 5).bind(4)
    assert Tensor(np.arange(12).reshape(6, 2))[i].tolist() == [8, 9]


def test_arguments_stand_where_tinygrad_has_them() -> None:
    t = Tensor([[1, 2], [3, 4]])
    assert t.full_like(2, dtypes.float16).dtype is dtypes.float16
    assert t.empty_like(dtypes.int8).dtype is dtypes.int8
    assert Tensor.full((2,), 1, "float64", None, False).dtype is dtypes.float64
    assert Tensor.arange(0, 3, 1, "int64").dtype is dtypes.int64
    assert Tensor.eye(2, None, "int32").dtype is dtypes.int32
    assert t.shrink(arg=((0, 1), None)).shape == (1, 2)
    assert t.const_like(b=3).tolist() == [[3, 3], [3, 3]]
    copy = t.clone(t.device)
    copy += 1
    assert t.tolist() == [[1, 2], [3, 4]]
