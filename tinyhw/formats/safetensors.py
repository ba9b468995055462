"""The safetensors format: a JSON header that says where in the file each tensor lies.

    8 bytes   length of the header, little-endian
    header    {"NAME": {"dtype": "F32", "shape": [2, 3], "data_offsets": [BEGIN, END]}, ...}
    data      the tensors, row-major and little-endian, one after the other without a gap

`__metadata__` in the header maps strings to strings. A file is untrusted: everything that it
says is checked against its size before it is used, and what does not hold is MalformedInput.
"""

from __future__ import annotations

import json
import math
import os
import reprlib
import secrets
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, Final, NoReturn

from compiler.dtype import DType, dtypes
from drivers.errors import MalformedInput
from tinyhw.formats.files import file_error, map_open, open_regular

DTYPES: Final[dict[str, DType]] = {
    "BOOL": dtypes.bool,
    "I8": dtypes.int8,
    "U8": dtypes.uint8,
    "I16": dtypes.int16,
    "U16": dtypes.uint16,
    "I32": dtypes.int32,
    "U32": dtypes.uint32,
    "I64": dtypes.int64,
    "U64": dtypes.uint64,
    "F8_E4M3": dtypes.float8_e4m3fn,
    "F8_E5M2": dtypes.float8_e5m2,
    "F16": dtypes.float16,
    "BF16": dtypes.bfloat16,
    "F32": dtypes.float32,
    "F64": dtypes.float64,
}
NAMES: Final[dict[DType, str]] = {dtype: name for name, dtype in DTYPES.items()}
METADATA: Final = "__metadata__"

LENGTH_BYTES: Final = 8  # the header's length stands before it
ALIGNMENT: Final = 8  # the writer pads its header with spaces, so that the data starts aligned
MAX_HEADER_BYTES: Final = 100_000_000  # the format's own limit
MAX_RANK: Final = 64  # NumPy's
MAX_EXTENT: Final = (1 << 63) - 1

_REPR: Final = reprlib.Repr()  # a hostile value may be huge or deep; a message stays short
_REPR.maxstring = _REPR.maxlong = 100


@dataclass(frozen=True)
class TensorView:
    """One tensor of a file: `data` are its bytes, row-major and little-endian, not copied."""

    dtype: DType
    shape: tuple[int, ...]
    data: memoryview


@dataclass(frozen=True)
class TensorInfo:
    """Where a tensor lies: its bytes are `start` to `end`, counted from the file's start."""

    dtype: DType
    shape: tuple[int, ...]
    start: int
    end: int


@dataclass(frozen=True)
class Header:
    """What a file holds: its tensors in the order of their bytes, and free-form metadata."""

    tensors: dict[str, TensorInfo]
    metadata: dict[str, str]


def read_header(path: str | os.PathLike[str]) -> Header:
    """Reads and checks the header of a file; raises MalformedInput or SystemCallFailed."""
    name = os.fspath(path)
    try:
        with open_regular(name) as file:
            return _read_header(name, file, os.fstat(file.fileno()).st_size)
    except OSError as error:
        raise file_error("read", name, error) from error


def load(path: str | os.PathLike[str]) -> dict[str, TensorView]:
    """Maps a file and returns its tensors by name, in the order of their bytes.

    The views share one private mapping, which lives until the last of them is gone: what is
    written to it does not reach the file. The file must not be shortened meanwhile. Raises
    MalformedInput or SystemCallFailed.
    """
    name = os.fspath(path)
    try:
        with open_regular(name) as file:
            header = _read_header(name, file, os.fstat(file.fileno()).st_size)
            mapping = map_open(file)
    except OSError as error:
        raise file_error("read", name, error) from error
    return {
        tensor: TensorView(info.dtype, info.shape, mapping[info.start : info.end])
        for tensor, info in header.tensors.items()
    }


def save(
    path: str | os.PathLike[str],
    tensors: Mapping[str, TensorView],
    metadata: Mapping[str, str] | None = None,
) -> None:
    """Writes a file that holds `tensors`; it replaces an existing one only when complete.

    Tensors with wide elements come first, so that each is aligned to its element; equal input
    gives equal bytes. Raises MalformedInput for a tensor whose bytes contradict its shape, and
    SystemCallFailed when the file cannot be written.
    """
    name = os.fspath(path)
    for tensor, view in tensors.items():
        needed = _size_bytes(view.shape, view.dtype)
        if needed != view.data.nbytes or not view.data.c_contiguous:
            _refuse(
                name,
                f"tensor {_quoted(tensor)} of shape {view.shape} needs {needed} contiguous bytes; "
                f"it has {view.data.nbytes}",
            )
    described = {tensor: (view.dtype, view.shape) for tensor, view in tensors.items()}
    stream(name, described, lambda tensor: tensors[tensor].data, metadata)


def stream(
    path: str | os.PathLike[str],
    tensors: Mapping[str, tuple[DType, tuple[int, ...]]],
    read: Callable[[str], memoryview],
    metadata: Mapping[str, str] | None = None,
) -> None:
    """`save` of tensors of these dtypes and shapes; `read` gives one's bytes when it is written."""
    name = os.fspath(path)
    order = sorted(tensors, key=lambda tensor: (-tensors[tensor][0].itemsize, tensor))
    header = _encode_header(name, {tensor: tensors[tensor] for tensor in order}, metadata)
    unfinished = f"{name}.{secrets.token_hex(8)}.tmp"
    try:
        with open(unfinished, "xb") as file:
            try:
                file.write(header)
                for tensor in order:
                    file.write(read(tensor))
                file.close()
                os.replace(unfinished, name)
            except BaseException:
                Path(unfinished).unlink(missing_ok=True)
                raise
    except OSError as error:
        raise file_error("write", name, error) from error


def _read_header(name: str, file: BinaryIO, file_bytes: int) -> Header:
    length = int.from_bytes(_read_exactly(name, file, LENGTH_BYTES, file_bytes), "little")
    limit = min(file_bytes - LENGTH_BYTES, header_limit(file_bytes))
    if length > limit:
        _refuse(
            name,
            f"the header claims {length} bytes; this file of {file_bytes} bytes "
            f"can have at most {limit}",
        )
    text = _read_exactly(name, file, length, file_bytes)
    entries = _parse_json(name, text)
    metadata = _checked_metadata(name, entries.pop(METADATA, {}))
    data_start = LENGTH_BYTES + length
    found = [
        (tensor, _checked_tensor(name, tensor, entry, data_start, file_bytes))
        for tensor, entry in entries.items()
    ]
    found.sort(key=lambda item: (item[1].start, item[1].end))
    _check_contiguous(name, found, data_start, file_bytes)
    return Header(dict(found), metadata)


def header_limit(file_bytes: int) -> int:
    """The longest header that a file of this size may have.

    JSON grows up to 32 times when it becomes Python objects (`{},` is 3 bytes, an empty dict
    72), so this keeps a hostile header within twice the file's size and 64 MiB. A file
    of ordinary tensors needs about 100 bytes for each.
    """
    return min(MAX_HEADER_BYTES, (2 << 20) + file_bytes // 16)


def _read_exactly(name: str, file: BinaryIO, size_bytes: int, file_bytes: int) -> bytes:
    parts = []
    missing = size_bytes
    while missing:
        part = file.read(missing)
        if not part:
            _refuse(name, f"it ends after {file_bytes} bytes, within its header")
        parts.append(part)
        missing -= len(part)
    return b"".join(parts)


def _parse_json(name: str, text: bytes) -> dict[str, Any]:
    if not text.startswith(b"{"):
        _refuse(name, f"the header starts with {text[:1]!r}; it must be a JSON object")
    try:
        parsed = json.loads(text.decode("utf-8"), object_pairs_hook=_unique)
    except UnicodeDecodeError as error:
        _refuse(name, f"the header is not UTF-8 at its byte {error.start}")
    except RecursionError:
        _refuse(name, "the header nests deeper than its 3 levels")
    except ValueError as error:
        _refuse(name, f"the header is not valid JSON: {_shortened(str(error))}")
    assert isinstance(parsed, dict)
    return parsed


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for key, value in pairs:
        if key in found:
            raise ValueError(f"{_quoted(key)} is there twice")
        found[key] = value
    return found


def _checked_metadata(name: str, metadata: object) -> dict[str, str]:
    if not isinstance(metadata, dict):
        _refuse(name, f"{METADATA} is {_quoted(metadata)}; it must map strings to strings")
    for key, value in metadata.items():
        _check_unicode(name, f"{METADATA}[{_quoted(key)}]", key)
        if not isinstance(value, str):
            _refuse(name, f"{METADATA}[{_quoted(key)}] is {_quoted(value)}; it must be a string")
        _check_unicode(name, f"{METADATA}[{_quoted(key)}]", value)
    return metadata


def _checked_tensor(
    name: str, tensor: str, entry: object, data_start: int, file_bytes: int
) -> TensorInfo:
    what = f"tensor {_quoted(tensor)}"
    _check_unicode(name, what, tensor)
    if not isinstance(entry, dict):
        _refuse(name, f"{what} is {_quoted(entry)}; it must be an object")
    for field in ("dtype", "shape", "data_offsets"):
        if field not in entry:
            _refuse(name, f"{what} has no {field}")
    dtype_name = entry["dtype"]
    if not isinstance(dtype_name, str) or dtype_name not in DTYPES:
        _refuse(name, f"{what} has dtype {_quoted(dtype_name)}; known are {', '.join(DTYPES)}")
    dtype = DTYPES[dtype_name]
    shape = _checked_integers(name, f"{what}: shape", entry["shape"], MAX_EXTENT)
    if len(shape) > MAX_RANK:
        _refuse(name, f"{what} has {len(shape)} dimensions; the limit is {MAX_RANK}")
    data_bytes = file_bytes - data_start
    offsets = _checked_integers(name, f"{what}: data_offsets", entry["data_offsets"], data_bytes)
    if len(offsets) != 2 or offsets[0] > offsets[1]:
        _refuse(
            name,
            f"{what} has data_offsets {_quoted(list(offsets))}; "
            "they must be a begin and an end not before it",
        )
    begin, end = offsets
    needed = _size_bytes(shape, dtype)
    if needed != end - begin:
        _refuse(
            name,
            f"{what} claims {_quoted(math.prod(shape))} elements of {dtype_name}, which are "
            f"{_quoted(needed)} bytes; its data_offsets hold {end - begin}",
        )
    return TensorInfo(dtype, shape, data_start + begin, data_start + end)


def _check_unicode(name: str, what: str, text: str) -> None:
    """Refuses lone surrogates, which JSON's escapes can spell and UTF-8 cannot."""
    try:
        text.encode("utf-8")
    except UnicodeEncodeError:
        _refuse(name, f"{what} is not valid Unicode")


def _checked_integers(name: str, what: str, values: object, limit: int) -> tuple[int, ...]:
    if not isinstance(values, list):
        _refuse(name, f"{what} is {_quoted(values)}; it must be a list")
    for value in values:
        if type(value) is not int or not 0 <= value <= limit:
            _refuse(name, f"{what} has {_quoted(value)}; it must be an integer from 0 to {limit}")
    return tuple(values)


def _check_contiguous(
    name: str, found: list[tuple[str, TensorInfo]], data_start: int, file_bytes: int
) -> None:
    position = data_start
    for tensor, info in found:
        if info.start != position:
            what = "overlaps the one before it" if info.start < position else "leaves a gap"
            _refuse(
                name,
                f"tensor {_quoted(tensor)} starts at byte {info.start - data_start} "
                f"of the data and {what}, which ends at {position - data_start}",
            )
        position = info.end
    if position != file_bytes:
        _refuse(name, f"its tensors end at byte {position}; the file has {file_bytes} bytes")


def _encode_header(
    name: str,
    tensors: Mapping[str, tuple[DType, tuple[int, ...]]],
    metadata: Mapping[str, str] | None,
) -> bytes:
    header: dict[str, object] = {}
    if metadata:
        header[METADATA] = _checked_metadata(name, dict(metadata))
    position = 0
    for tensor, (dtype, shape) in tensors.items():
        what = f"tensor {_quoted(tensor)}"
        if tensor == METADATA:
            _refuse(name, f"{what} has the name of the metadata")
        _check_unicode(name, what, tensor)
        if dtype not in NAMES:
            _refuse(name, f"{what} has {dtype}; known are {', '.join(DTYPES)}")
        needed = _size_bytes(shape, dtype)
        if any(extent < 0 for extent in shape):
            _refuse(name, f"{what} has the shape {shape}, with a negative extent")
        header[tensor] = {
            "dtype": NAMES[dtype],
            "shape": [int(extent) for extent in shape],
            "data_offsets": [position, position + needed],
        }
        position += needed
    text = json.dumps(header, separators=(",", ":"), ensure_ascii=False).encode("utf-8")
    text += b" " * (-len(text) % ALIGNMENT)
    if len(text) > header_limit(LENGTH_BYTES + len(text) + position):
        _refuse(name, f"its header would have {len(text)} bytes; no reader takes it")
    return len(text).to_bytes(LENGTH_BYTES, "little") + text


def _size_bytes(shape: tuple[int, ...], dtype: DType) -> int:
    return math.prod(shape) * dtype.itemsize


def _refuse(name: str, reason: str) -> NoReturn:
    raise MalformedInput(f"{name}: {reason}.", operation="safetensors")


def _quoted(value: object) -> str:
    return _REPR.repr(value)


def _shortened(text: str) -> str:
    return text if len(text) <= _REPR.maxstring else f"{text[: _REPR.maxstring]}..."
