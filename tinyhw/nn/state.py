"""The tensors of a model by name, and their way to and from safetensors files."""

from __future__ import annotations

import os
from collections import OrderedDict
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from compiler.dtype import DType, dtypes
from tinyhw import storage
from tinyhw.errors import DtypeError, ShapeError, TensorError
from tinyhw.formats import archive, safetensors, tar, torch
from tinyhw.formats.files import map_file
from tinyhw.strides import strided
from tinyhw.tensor import Tensor


class StateMismatch(TensorError, KeyError):
    """A state dict lacks a tensor of the model, or has one too many."""

    code = "TH110"

    def __str__(self) -> str:
        return str(self.args[0])


def get_state_dict(
    obj: Any, prefix: str = "", tensor_type: type[Tensor] = Tensor
) -> dict[str, Tensor]:
    """Every tensor in an object's attributes, lists and dicts, named by the way to it."""
    return dict(_tensors(obj, prefix, tensor_type, set()))


def _tensors(
    obj: Any, prefix: str, kind: type[Tensor], above: set[int]
) -> Iterator[tuple[str, Tensor]]:
    if isinstance(obj, kind):
        yield prefix.strip("."), obj
        return
    if id(obj) in above:  # a model that refers to itself
        return
    parts: Mapping[Any, Any]
    if isinstance(obj, list | tuple) and hasattr(obj, "_asdict"):
        parts = obj._asdict()
    elif isinstance(obj, list | tuple):
        parts = dict(enumerate(obj))
    elif isinstance(obj, OrderedDict | dict):
        parts = obj
    else:
        parts = getattr(obj, "__dict__", {})
    for name, part in parts.items():
        yield from _tensors(part, f"{prefix}{name}.", kind, above | {id(obj)})


def get_parameters(obj: Any) -> list[Tensor]:
    """Every tensor of an object, for an optimiser."""
    return list(get_state_dict(obj).values())


def load_state_dict(
    model: Any,
    state_dict: Mapping[str, Tensor],
    strict: bool = True,
    verbose: bool = False,
    consume: bool = False,
    realize: bool = True,
) -> list[Tensor]:
    """Writes the tensors of a state dict into the model's; returns the model's.

    strict: raises StateMismatch where either has a name that the other lacks. verbose: prints
    the names left out. consume: empties the state dict on the way, if it can be changed.
    """
    own = get_state_dict(model)
    missing = [name for name in own if name not in state_dict]
    extra = [name for name in state_dict if name not in own]
    if strict and (missing or extra):
        raise StateMismatch(
            f"The state dict does not fit the model: it lacks {_listed(missing)} and has "
            f"{_listed(extra)} that the model lacks.",
            operation="load_state_dict",
            remedy="Load with strict=False to leave these out.",
        )
    if verbose and (missing or extra):
        print(f"load_state_dict leaves out {_listed(missing)} and {_listed(extra)}")
    changed = []
    for name, tensor in own.items():
        if name not in state_dict:
            continue
        given = state_dict[name]
        if given.shape != tensor.shape and not _both_single(given, tensor):
            raise ShapeError(
                f"{name} has the shape {tensor.shape}, and the state dict {given.shape}.",
                operation="load_state_dict",
            )
        value = given.detach().to(tensor.device).cast(tensor.dtype).reshape(tensor.shape)
        changed.append(tensor.assign(value))
        if consume and isinstance(state_dict, dict):
            del state_dict[name]
    if realize and changed:
        Tensor.realize(*changed)
    return changed


def _both_single(a: Tensor, b: Tensor) -> bool:
    """Whether one is a scalar and the other a vector of one: files differ there."""
    return a.numel() == b.numel() == 1


def _listed(names: list[str]) -> str:
    more = f" and {len(names) - 5} more" if len(names) > 5 else ""
    return ", ".join(names[:5]) + more or "none"


def safe_save(
    tensors: Mapping[str, Tensor],
    fn: str | os.PathLike[str],
    metadata: dict[str, str] | None = None,
) -> None:
    """Writes tensors to a safetensors file; an old file is replaced only when all is written.

    What is lazy is computed when its turn comes, one tensor after the other.
    """
    for name, tensor in tensors.items():
        if not isinstance(tensor, Tensor):
            raise DtypeError(f"safe_save writes tensors, and {name!r} is {type(tensor).__name__}.")
    described = {name: (t.dtype, t._fixed_shape()) for name, t in tensors.items()}
    safetensors.stream(fn, described, lambda name: tensors[name].detach()._bytes(), metadata)


def safe_load(fn: str | os.PathLike[str], device: str | None = None) -> dict[str, Tensor]:
    """The tensors of a safetensors file by name, on the default device or another.

    The file is mapped and must not be shortened: a tensor is read when it is first used.
    """
    return {
        name: from_file(view.data, view.dtype, view.shape, device)
        for name, view in safetensors.load(fn).items()
    }


def from_file(
    data: memoryview, dtype: DType, shape: tuple[int, ...], device: str | None
) -> Tensor:
    """The tensor of a mapped file's bytes, which are read when it is first used."""
    if not data.nbytes:
        return Tensor.zeros(shape, dtype=dtype, device=device)
    return Tensor(storage.from_bytes_later(data, dtype, device).reshape(shape), device)


def torch_load(fn: str | os.PathLike[str], device: str | None = None) -> Any:
    """What torch.save wrote, with tensors of ours; of a state dict a dict of tensors by name.

    Only plain values, containers and tensors are read, and nothing in the file is executed.
    Tensors that share a storage share it here. The file is mapped, as by `safe_load`.
    """
    storages: dict[tuple[str, DType], Tensor] = {}

    def make(found: torch.StoredTensor) -> Tensor:
        if 0 in found.shape:
            return Tensor.zeros(found.shape, dtype=found.dtype, device=device)
        whole = storages.get((found.key, found.dtype))
        if whole is None:
            count = len(found.data) // found.dtype.itemsize
            data = found.data[: count * found.dtype.itemsize]
            whole = from_file(data, found.dtype, (count,), device)
            storages[found.key, found.dtype] = whole
        return whole._move(strided(whole.node, found.shape, found.strides, found.offset))

    return torch.load(fn, make)


def tar_extract(
    t: str | os.PathLike[str] | Tensor, device: str | None = None
) -> dict[str, Tensor]:
    """The bytes of each regular file in a tar file, by name, as uint8.

    t: the file's path, or its bytes. A file is mapped, as by `safe_load`. Raises MalformedInput.
    """
    return _extracted(t, device, tar.members)


def zip_extract(
    t: str | os.PathLike[str] | Tensor, device: str | None = None
) -> dict[str, Tensor]:
    """The bytes of each member of a ZIP file, by name, as uint8; none may be compressed.

    t: the file's path, or its bytes. A file is mapped, as by `safe_load`. Raises MalformedInput.
    """
    return _extracted(t, device, archive.members)


def _extracted(
    t: str | os.PathLike[str] | Tensor,
    device: str | None,
    members: Callable[[str, memoryview], dict[str, memoryview]],
) -> dict[str, Tensor]:
    if isinstance(t, Tensor):
        if t.dtype is not dtypes.uint8 or t.ndim != 1:
            raise DtypeError(f"A file's bytes are a vector of uint8, not {t!r}.")
        name, data = "a tensor's bytes", t._bytes()
    else:
        name, data = os.fspath(t), map_file(os.fspath(t))
    return {
        member: from_file(part, dtypes.uint8, (len(part),), device)
        for member, part in members(name, data).items()
    }


def safe_load_metadata(fn: str | os.PathLike[str]) -> dict[str, str]:
    """The free-form metadata of a safetensors file."""
    return safetensors.read_header(fn).metadata


__all__ = [
    "StateMismatch",
    "get_parameters",
    "get_state_dict",
    "load_state_dict",
    "safe_load",
    "safe_load_metadata",
    "safe_save",
    "tar_extract",
    "torch_load",
    "zip_extract",
]
