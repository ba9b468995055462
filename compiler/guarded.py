"""LLVM in a process of its own, for kernels that nobody has vetted: searches and fuzzers.

An error in LLVM's back end ends the process it happens in. Here that is a worker, whose end is an
error of ours; the next kernel gets a new one. It costs a pipe, and one start of Python.
"""

from __future__ import annotations

import os
import pickle
import select
import signal
import struct
import subprocess
import sys
import tempfile
from typing import Any, BinaryIO

from compiler.errors import TinyhwError, ToolFailed
from compiler.target import Target

TIMEOUT_S = 60.0
"""For one kernel. The slowest of ours take a second."""

_LENGTH = struct.Struct("<Q")


class GuardedLLVM:
    """Compiles like `llvm.compile_ir`, but outlives LLVM. Not for several threads at once."""

    def __init__(self, timeout_s: float = TIMEOUT_S) -> None:
        self.timeout_s = timeout_s
        self._worker: subprocess.Popen[bytes] | None = None
        self._messages = tempfile.TemporaryFile()

    def __enter__(self) -> GuardedLLVM:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def close(self) -> None:
        """Ends the worker."""
        self._stop()
        self._messages.close()

    def compile_ir(self, text: str, target: Target) -> bytes:
        """A relocatable object of the IR in `text`.

        Raises what `llvm.compile_ir` raises, and ToolFailed where LLVM ended its process or took
        longer than `timeout_s`.
        """
        if self._worker is None:
            self._messages.seek(0)
            self._messages.truncate()
            self._worker = _start(self._messages)
        worker = self._worker
        assert worker.stdin is not None and worker.stdout is not None
        try:
            _write(worker.stdin, (text, target))
            ready, _, _ = select.select([worker.stdout], [], [], self.timeout_s)
            answer = _read(worker.stdout) if ready else None
        except (BrokenPipeError, EOFError):
            raise self._died(text) from None
        if answer is None:
            self._stop()
            raise ToolFailed(
                f"LLVM took more than {self.timeout_s:g} s for {_kernel(text)}.",
                operation="compile_ir",
            )
        if isinstance(answer, TinyhwError):
            raise answer
        return bytes(answer)

    def _died(self, text: str) -> ToolFailed:
        assert self._worker is not None
        status = self._worker.wait()
        self._stop()
        self._messages.seek(0)
        said = self._messages.read().decode(errors="replace").strip().splitlines()
        ending = f"signal {-status}" if status < 0 else f"exit status {status}"
        return ToolFailed(
            f"LLVM ended its process ({ending}) over {_kernel(text)}: "
            f"{said[0] if said else 'it did not say why'}.",
            operation="compile_ir",
        )

    def _stop(self) -> None:
        worker, self._worker = self._worker, None
        if worker is not None:
            assert worker.stdin is not None and worker.stdout is not None
            worker.kill()
            worker.wait()
            worker.stdout.close()
            try:
                worker.stdin.close()
            except BrokenPipeError:  # what it was never sent
                pass


def _start(messages: BinaryIO) -> subprocess.Popen[bytes]:
    root = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
    code = f"import sys; sys.path.insert(0, {root!r}); import compiler.guarded as g; g.serve()"
    return subprocess.Popen(
        [sys.executable, "-c", code],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=messages,
    )


def serve() -> None:
    """The worker: answers until its input ends. Only its parent writes there."""
    from compiler import llvm

    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent's to handle
    answers = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # what LLVM prints is no answer
    while True:
        try:
            text, target = _read(sys.stdin.buffer)
        except EOFError:
            return
        try:
            answer: object = llvm.compile_ir(text, target)
        except TinyhwError as error:
            answer = error
        _write(answers, answer)


def _write(file: Any, message: object) -> None:
    data = pickle.dumps(message)
    file.write(_LENGTH.pack(len(data)) + data)
    file.flush()


def _read(file: Any) -> Any:
    header = file.read(_LENGTH.size)
    data = file.read(_LENGTH.unpack(header)[0]) if len(header) == _LENGTH.size else b""
    if not data:
        raise EOFError
    return pickle.loads(data)


def _kernel(text: str) -> str:
    """Names the kernel of a module."""
    _, _, rest = text.partition("\ndefine ")
    return f"kernel {rest.partition('@')[2].partition('(')[0]}" if rest else "a module"
