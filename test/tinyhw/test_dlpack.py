"""Memory shared with other libraries: who sees whose writes, who keeps it alive, what is refused.

The tensors stand on processors, whatever the default device is.
"""

from __future__ import annotations

import ctypes
import gc
import weakref
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tinyhw import Device, Tensor, dlpack, dtypes, storage
from tinyhw.errors import DeviceError, ExchangeError, ShapeError

PROCESSORS = ["LLVM", "CLANG"]


def settle(tensor: Tensor) -> None:
    """Waits for what was asked of the tensor."""
    tensor.realize()
    Device[tensor.device].synchronize()


# ---- both ways, in one memory ----


@pytest.mark.parametrize("device", PROCESSORS)
def test_an_array_and_its_tensor_see_each_others_writes(device: str) -> None:
    array = np.arange(12, dtype=np.float32).reshape(3, 4)
    tensor = Tensor.from_dlpack(array, device=device)
    assert (tensor.device, tensor.shape, tensor.dtype) == (device, (3, 4), dtypes.float32)
    array[0, 0] = 99
    assert (tensor + 1).numpy()[0, 0] == 100
    tensor[1:, 2] = Tensor([-1.0, -2.0], device=device)
    settle(tensor)
    assert array[:, 2].tolist() == [2, -1, -2]


@pytest.mark.parametrize("device", PROCESSORS)
def test_a_tensor_and_its_array_see_each_others_writes(device: str) -> None:
    tensor = Tensor(np.arange(6, dtype=np.int32).reshape(2, 3), device=device) * 2
    array = np.from_dlpack(tensor.T)  # computes it; views are lent as views
    assert array.tolist() == [[0, 6], [2, 8], [4, 10]]
    array[2, 0] = 77
    assert tensor.tolist() == [[0, 2, 77], [6, 8, 10]]
    settle(tensor.assign(Tensor.full((2, 3), 5, dtypes.int32, device=device)))
    assert (array == 5).all()


@pytest.mark.parametrize("dtype", dtypes.all, ids=lambda d: d.name)
def test_every_type_goes_to_torch_and_back_uncopied(dtype: Any) -> None:
    torch = pytest.importorskip("torch")
    tensor = Tensor([[0, 1, 1], [1, 0, 2]], device="LLVM").cast(dtype)
    theirs = torch.from_dlpack(tensor)
    assert str(theirs.dtype) == f"torch.{dtype.name}"
    assert theirs.float().tolist() == tensor.float().tolist()
    ours = Tensor.from_dlpack(theirs[:, 1:], device="LLVM")
    assert ours.dtype is dtype
    theirs[0, 1] = 0
    assert ours.float().tolist() == [[0, 1], [0, float(ours.float()[1, 1].item())]]
    held = storage.NUMPY_TYPES[dtype].name
    assert np.from_dlpack(ours.bitcast(held) if dtype in storage.AS_BITS else ours).shape


def test_torch_writes_through_a_strided_view() -> None:
    torch = pytest.importorskip("torch")
    matrix = torch.arange(24.0).reshape(4, 6)
    ours = Tensor.from_dlpack(matrix.T[1::2, 1:], device="LLVM")
    assert ours.tolist() == matrix.T[1::2, 1:].tolist()
    settle(ours.assign(Tensor.zeros(*ours.shape, device="LLVM")))
    assert matrix[1:, 1::2].abs().sum() == 0 and matrix[0].tolist() == [0, 1, 2, 3, 4, 5]
    assert matrix[1:, 0::2].min() > 0
    expanded = Tensor.from_dlpack(torch.arange(3.0).expand(2, 3), device="LLVM")
    assert expanded.tolist() == [[0, 1, 2]] * 2


def test_equal_computations_are_not_lent_together() -> None:
    x = Tensor([1.0, 2.0], device="LLVM")
    a, b = x + 1, x + 1
    a.realize(b)
    np.from_dlpack(a)[...] = 0
    assert a.tolist() == [0, 0] and b.tolist() == [2, 3]


@pytest.mark.parametrize(
    "make",
    [
        lambda: Tensor([1.0, 2.0], device="LLVM").reshape(1, 2).expand(3, 2),
        lambda: Tensor([1.0, 2.0], device="LLVM").pad((1, 1)),
        lambda: Tensor(np.arange(6), device="LLVM").reshape(2, 3).T.reshape(2, 3),
    ],
)
def test_what_has_no_places_of_its_own_is_copied(make: Callable[[], Tensor]) -> None:
    tensor = make()
    expected = tensor.numpy()
    array = np.from_dlpack(tensor)
    assert (array == expected).all()
    array[...] = 7
    again = np.from_dlpack(make())
    assert (again == expected).all()
    with pytest.raises(ExchangeError, match="copy=False"):
        make().__dlpack__(copy=False)


def test_constants_are_lent_in_storage_of_their_own() -> None:
    ones = Tensor.ones(2, 3, device="LLVM")
    array = np.from_dlpack(ones)
    array[...] = 7
    assert (Tensor.ones(2, 3, device="LLVM").numpy() == 1).all()
    assert np.from_dlpack(Tensor.arange(3, device="LLVM").realize()).tolist() == [0, 1, 2]


def test_copies_when_asked() -> None:
    tensor = Tensor([1, 2, 3], device="LLVM")
    array = np.from_dlpack(tensor, copy=True)
    array[0] = 9
    assert tensor.tolist() == [1, 2, 3]
    copy = Tensor.from_dlpack(array, device="LLVM", copy=True)
    array[1] = 9
    assert copy.tolist() == [9, 2, 3]


def test_empty_and_scalar_arrays() -> None:
    for array in (np.zeros((2, 0, 3), np.int16), np.array(2.5)):
        tensor = Tensor.from_dlpack(array, device="LLVM")
        assert tensor.shape == array.shape and tensor.numpy().tolist() == array.tolist()
        back = np.from_dlpack(tensor)
        assert back.shape == array.shape and back.dtype == array.dtype


@given(st.data())
def test_arrays_of_any_strides_are_read_and_lent_in_place(data: st.DataObject) -> None:
    rank = data.draw(st.integers(0, 4))
    shape = data.draw(st.lists(st.integers(1, 4), min_size=rank, max_size=rank))
    steps = st.sampled_from([-24, -9, -3, -1, 0, 1, 2, 3, 4, 5, 12, 48])
    strides = data.draw(st.lists(steps, min_size=rank, max_size=rank))
    low = sum(min((n - 1) * s, 0) for n, s in zip(shape, strides, strict=True))
    memory = np.arange(700, dtype=np.int32)
    array = np.lib.stride_tricks.as_strided(
        memory[-low + 3 :], shape, [4 * s for s in strides], writeable=True
    )
    node = dlpack.from_capsule(array.__dlpack__(max_version=(1, 0)), "LLVM")
    found = dlpack.strides_of_view(node)
    assert found is not None and found[0] == -low
    assert all(n == 1 or a == b for n, a, b in zip(shape, found[1], strides, strict=True))
    if data.draw(st.integers(0, 9)) == 0:  # compiles
        assert (Tensor(node).numpy() == array).all()


# ---- other devices ----


def test_foreign_devices_are_named() -> None:
    class OnCuda:
        def __dlpack_device__(self) -> tuple[int, int]:
            return 2, 3

        def __dlpack__(self) -> None:
            raise AssertionError("must not be asked")

    with pytest.raises(ExchangeError, match=r"on CUDA \(number 3\)"):
        Tensor.from_dlpack(OnCuda())
    tensor = Tensor([1.0], device="LLVM")
    assert tensor.__dlpack_device__() == (1, 0)
    with pytest.raises(ExchangeError, match=r"not to \(2, 0\)"):
        tensor.__dlpack__(dl_device=(2, 0))
    with pytest.raises(ExchangeError, match="stream=1"):
        tensor.__dlpack__(stream=1)
    with pytest.raises(ExchangeError, match=r"detach\(\)"):
        Tensor([1.0], device="LLVM", requires_grad=True).__dlpack__()
    with pytest.raises(ExchangeError, match="needs an array with __dlpack__, not list"):
        Tensor.from_dlpack([1, 2])


if not Device.is_processor(Device.DEFAULT):

    def test_a_gpu_lends_copies_and_borrows_by_copying() -> None:
        tensor = Tensor([1.0, 2.0])
        assert tensor.__dlpack_device__()[0] == 12
        with pytest.raises(ExchangeError, match=r"No other library reaches memory of"):
            tensor.__dlpack__()
        array = np.from_dlpack(tensor, device="cpu")
        assert array.tolist() == [1, 2]
        moved = Tensor.from_dlpack(array, device=Device.DEFAULT)
        assert moved.device == Device.DEFAULT and (moved * 2).tolist() == [2, 4]
        with pytest.raises(ExchangeError, match="copy=False"):
            Tensor.from_dlpack(array, device=Device.DEFAULT, copy=False)


def test_types_and_layouts_that_tensors_lack_are_named() -> None:
    with pytest.raises(ExchangeError, match="type code 5, 64 bits"):
        Tensor.from_dlpack(np.zeros(2, np.complex64))
    fixed = np.arange(3.0)
    fixed.flags.writeable = False
    copied = Tensor.from_dlpack(fixed, device="LLVM")
    assert copied.tolist() == [0, 1, 2]
    with pytest.raises(ExchangeError, match="is read-only"):
        Tensor.from_dlpack(fixed, copy=False)


# ---- who keeps it alive ----


class Watched(np.ndarray[Any, Any]):
    """An array that weak references can watch."""


def watched(count: int) -> tuple[Watched, weakref.ref[Watched]]:
    array = np.arange(count, dtype=np.float32).view(Watched)
    return array, weakref.ref(array)


def test_a_borrowed_array_lives_as_long_as_what_uses_it() -> None:
    array, seen = watched(1000)
    tensor = Tensor.from_dlpack(array, device="LLVM")
    view, pending = tensor[10:], tensor.sum()
    del array, tensor
    gc.collect()
    assert seen() is not None and view[0].item() == 10
    del view
    assert pending.item() == 499500
    gc.collect()
    Device["LLVM"].synchronize()
    _ = Device["LLVM"].memory_used  # collects what has retired
    assert seen() is None


def test_lent_memory_outlives_the_tensor_and_goes_with_the_array() -> None:
    device = Device["LLVM"]
    before = device.memory_used
    tensor = Tensor.full((1 << 20,), 3.0, device="LLVM")
    array = np.from_dlpack(tensor)
    del tensor
    gc.collect()
    assert device.memory_used >= before + (4 << 20)
    other = Tensor.full((1 << 20,), 4.0, device="LLVM").realize()  # would reuse what is free
    assert (array == 3).all() and other[0].item() == 4
    del array, other
    gc.collect()
    assert device.memory_used < before + (4 << 20)


@pytest.mark.parametrize("max_version", [None, (0, 8), (1, 0), (1, 9)])
def test_a_capsule_that_nobody_consumes_gives_everything_back(
    max_version: tuple[int, int] | None,
) -> None:
    device = Device["LLVM"]
    before = device.memory_used
    capsule = Tensor.full((1 << 20,), 3.0, device="LLVM").__dlpack__(max_version=max_version)
    versioned = max_version is not None and max_version[0] >= 1
    assert ('"dltensor_versioned"' if versioned else '"dltensor"') in repr(capsule)
    assert device.memory_used >= before + (4 << 20)
    del capsule
    gc.collect()
    assert device.memory_used < before + (4 << 20)


def test_a_capsule_goes_while_an_exception_passes() -> None:
    def lend() -> None:
        capsule = Tensor([1.0, 2.0], device="LLVM").__dlpack__(max_version=(1, 0))
        raise KeyError(repr(capsule))

    for _ in range(3):
        with pytest.raises(KeyError, match="dltensor_versioned"):
            lend()


def test_a_capsule_is_consumed_once() -> None:
    capsule = np.arange(3).__dlpack__()
    assert Tensor.from_dlpack(capsule, device="LLVM").tolist() == [0, 1, 2]
    with pytest.raises(ExchangeError, match="consumed before"):
        Tensor.from_dlpack(capsule, device="LLVM")


def test_old_producers_and_consumers_understand_us() -> None:
    class Old:
        """A producer of a protocol before 1.0."""

        def __init__(self) -> None:
            self.array = np.arange(3.0)

        def __dlpack__(self) -> Any:
            return self.array.__dlpack__()

        def __dlpack_device__(self) -> tuple[int, int]:
            return 1, 0

    assert Tensor.from_dlpack(Old(), device="LLVM").tolist() == [0, 1, 2]
    torch = pytest.importorskip("torch")
    tensor = Tensor([1.0, 2.0], device="LLVM")
    theirs = torch.utils.dlpack.from_dlpack(tensor.__dlpack__())
    theirs[0] = 5
    assert tensor.tolist() == [5, 2]


# ---- malformed capsules ----


FIELDS = {
    "device_type": ((2, 10, -1), "on"),
    "ndim": ((-1, 65, 1 << 30), "axes"),
    "code": ((3, 5, 200), "type code"),
    "bits": ((0, 4, 31, 128), "type code"),
    "lanes": ((0, 2), "lanes"),
    "shape": ((0,), "no shape"),
    "data": ((0,), "no memory"),
    "byte_offset": (((1 << 64) - 8,), "would take|no memory"),
}


class Struct:
    """A structure of ours, whose deleter counts its calls."""

    def __init__(self) -> None:
        self.memory = (ctypes.c_float * 6)(*range(6))
        self.extents = (ctypes.c_int64 * 2)(2, 3)
        self.steps = (ctypes.c_int64 * 2)(3, 1)
        self.deleted = 0
        self.callback = ctypes.PYFUNCTYPE(None, ctypes.c_void_p)(self.delete)
        self.managed = dlpack.DLManagedTensorVersioned(
            major=1, minor=0, deleter=ctypes.cast(self.callback, ctypes.c_void_p).value,
            dl_tensor=dlpack.DLTensor(
                data=ctypes.addressof(self.memory), device_type=1, ndim=2, code=2, bits=32, lanes=1,
                shape=ctypes.addressof(self.extents), strides=ctypes.addressof(self.steps),
            ),
        )

    def delete(self, address: int) -> None:
        assert address == ctypes.addressof(self.managed)
        self.deleted += 1

    def capsule(self) -> Any:
        functions = dlpack.capsule_functions(True)
        at = ctypes.addressof(self.managed)
        return dlpack._new_capsule(at, functions.name, functions.destroy)


def test_the_deleter_is_called_once() -> None:
    struct = Struct()
    tensor = Tensor.from_dlpack(struct.capsule(), device="LLVM")
    assert tensor.tolist() == [[0, 1, 2], [3, 4, 5]] and struct.deleted == 0
    del tensor
    gc.collect()
    assert struct.deleted == 1


@pytest.mark.parametrize("field", FIELDS)
def test_a_field_that_is_wrong_is_named(field: str) -> None:
    values, message = FIELDS[field]
    for value in values:
        struct = Struct()
        setattr(struct.managed.dl_tensor, field, value)
        capsule = struct.capsule()
        with pytest.raises(ExchangeError, match=message):
            Tensor.from_dlpack(capsule, device="LLVM")
        assert struct.deleted == 0  # the capsule still owns it
        del capsule
        assert struct.deleted == 1


@pytest.mark.parametrize("extents", [(-1, 3), (1 << 62, 1 << 62), (1 << 46, 1)])
def test_shapes_that_cannot_be_are_refused(extents: tuple[int, int]) -> None:
    struct = Struct()
    struct.extents[:] = extents
    with pytest.raises(ExchangeError, match=r"negative extent|the limit is"):
        Tensor.from_dlpack(struct.capsule(), device="LLVM")


@pytest.mark.parametrize("steps", [(1 << 62, 1), (-(1 << 63), 1), (3, 1 << 60)])
def test_strides_that_cannot_be_are_refused(steps: tuple[int, int]) -> None:
    struct = Struct()
    struct.steps[:] = steps
    with pytest.raises(ExchangeError, match="the limit is"):
        Tensor.from_dlpack(struct.capsule(), device="LLVM")


def test_other_major_versions_and_no_capsules_are_refused() -> None:
    struct = Struct()
    struct.managed.major = 2
    with pytest.raises(ExchangeError, match=r"version 2\.0 of DLPack; 1\.x"):
        Tensor.from_dlpack(struct.capsule(), device="LLVM")

    class Liar:
        def __dlpack__(self, **kwargs: Any) -> Any:
            return 5

    with pytest.raises(ExchangeError, match="no DLPack capsule but 5"):
        Tensor.from_dlpack(Liar())


def test_what_is_not_aligned_is_copied() -> None:
    struct = Struct()
    raw = (ctypes.c_ubyte * 32)()
    raw[1:25] = bytes(struct.memory)
    struct.managed.dl_tensor.data = ctypes.addressof(raw)
    struct.managed.dl_tensor.byte_offset = 1
    tensor = Tensor.from_dlpack(struct.capsule(), device="LLVM")
    assert struct.deleted == 1 and tensor.tolist() == [[0, 1, 2], [3, 4, 5]]
    with pytest.raises(ExchangeError, match="not aligned"):
        Tensor.from_dlpack(struct.capsule(), device="LLVM", copy=False)


# ---- addresses ----


def test_a_blob_is_used_in_place_and_its_owner_kept() -> None:
    array, seen = watched(6)
    at = array.ctypes.data
    tensor = Tensor.from_blob(at, (2, 3), dtypes.float32, "LLVM", owner=array)
    array[0] = 10
    assert tensor.tolist() == [[10, 1, 2], [3, 4, 5]]
    del array
    gc.collect()
    assert seen() is not None
    del tensor
    gc.collect()
    assert seen() is None


def test_addresses_that_cannot_be_are_refused() -> None:
    for address in (0, 3, -4, 1 << 64, 1.5):
        with pytest.raises(ExchangeError, match="multiple of 4"):
            Tensor.from_blob(address, (2,), device="LLVM")  # type: ignore[arg-type]
    with pytest.raises(ShapeError, match="negative"):
        Tensor.from_blob(4096, (-1,), device="LLVM")
    with pytest.raises(ExchangeError, match="the limit is"):
        Tensor.from_blob(4096, (1 << 50,), device="LLVM")
    with pytest.raises(DeviceError, match="AMD cannot compute"):
        Tensor.from_blob(4096, (1,), device="AMD")
