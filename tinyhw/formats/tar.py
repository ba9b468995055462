"""The members of a tar file: where the bytes of each regular file lie.

Source: POSIX.1-2017, pax. Headers are read by Python's tarfile; a file is untrusted: what does not
hold is MalformedInput.
"""

from __future__ import annotations

import io
import tarfile
from typing import Final

from drivers.errors import MalformedInput

MAX_MEMBERS: Final = 1 << 20


def members(name: str, data: memoryview) -> dict[str, memoryview]:
    """The contents of each regular file, not copied; `name` is the file's, for messages."""
    found: dict[str, memoryview] = {}
    try:
        with tarfile.open(fileobj=_Bytes(data), mode="r:") as archive:
            for member in archive:
                if len(found) >= MAX_MEMBERS:
                    raise MalformedInput(f"{name}: it has over {MAX_MEMBERS} members.")
                if not member.isreg():
                    continue
                end = member.offset_data + member.size
                if member.issparse() or not 0 <= member.offset_data <= end <= len(data):
                    raise MalformedInput(
                        f"{name}: member {member.name[:100]!r} of {member.size} bytes at "
                        f"{member.offset_data} is sparse, or goes beyond the {len(data)} bytes of "
                        "the file.",
                        operation="tar",
                    )
                found[member.name] = data[member.offset_data : end]
    except MalformedInput:
        raise
    except (tarfile.TarError, ValueError, OverflowError, EOFError) as error:
        raise MalformedInput(f"{name}: it is no tar file: {error}.", operation="tar") from error
    return found


class _Bytes(io.RawIOBase):
    """Memory as a file, without a copy."""

    def __init__(self, data: memoryview) -> None:
        super().__init__()
        self._data, self._at = data, 0

    def readable(self) -> bool:
        """True."""
        return True

    def seekable(self) -> bool:
        """True."""
        return True

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        """Goes to a byte; raises ValueError before the first."""
        base = {io.SEEK_SET: 0, io.SEEK_CUR: self._at, io.SEEK_END: len(self._data)}[whence]
        if base + offset < 0:
            raise ValueError(f"a position of {base + offset}")
        self._at = base + offset
        return self._at

    def read(self, size: int = -1) -> bytes:
        """The next bytes, at most as many as there are, whatever a header claims."""
        end = len(self._data) if size < 0 else min(len(self._data), self._at + size)
        part = bytes(self._data[self._at : end])
        self._at += len(part)
        return part


__all__ = ["members"]
