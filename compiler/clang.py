"""clang as a process: C in through its standard input, an object out through its output.

Nothing is written to disk and nothing is linked; `elf.link` does the rest.
"""

from __future__ import annotations

import functools
import os
import shutil
import subprocess

from compiler.errors import ToolFailed, ToolMissing
from compiler.target import Target

VERSIONS = range(40, 12, -1)
TIMEOUT_S = 120

_FLAGS = (
    *("-x", "c", "-std=gnu11", "-c", "-O2", "-fPIC", "-fvisibility=hidden"),
    # No library is there: no calls of memset, no errno, no unwinding, no stack guard.
    *("-ffreestanding", "-fno-builtin", "-fno-math-errno", "-fno-stack-protector"),
    *("-fno-asynchronous-unwind-tables", "-fno-ident", "-nostdinc"),
    # The same arithmetic as in our LLVM IR: integers wrap, a*b+c may be fused, floats out of an
    # integer's range give some number, memory has no type.
    *("-fwrapv", "-ffp-contract=fast", "-fno-strict-float-cast-overflow", "-fno-strict-aliasing"),
    "-fsigned-char",
    *("-Wall", "-Wno-unused", "-Wno-psabi", "-Wno-unknown-warning-option"),
)


def find_clang() -> str | None:
    """The path of `clang`, or of the newest versioned one (clang-19, ...), or None."""
    for name in ("clang", *(f"clang-{version}" for version in VERSIONS)):
        found = shutil.which(name)
        if found is not None:
            return found
    return None


def _require_clang() -> str:
    found = find_clang()
    if found is None:
        raise ToolMissing(
            "There is no clang in PATH, neither `clang` nor `clang-13` to `clang-40`.",
            operation="find clang",
            remedy="Run `sudo apt-get install clang`, or use the device LLVM, which needs none.",
        )
    return found


def _run(arguments: list[str], text: str) -> bytes:
    """Output of a clang run; ToolFailed with what it said when it does not succeed."""
    command = " ".join(arguments)
    try:
        done = subprocess.run(
            arguments, input=text.encode(), capture_output=True, timeout=TIMEOUT_S, check=False
        )
    except subprocess.TimeoutExpired as error:
        raise ToolFailed(
            f"{arguments[0]} took longer than {TIMEOUT_S} s for {len(text)} characters of C.",
            operation=command,
        ) from error
    except OSError as error:
        raise ToolFailed(
            f"{arguments[0]} cannot be run: {error.strerror}.", operation=command
        ) from error
    if done.returncode != 0:
        said = done.stderr.decode(errors="replace").strip()
        raise ToolFailed(
            f"{arguments[0]} ended with {done.returncode} and said:\n{said}", operation=command
        )
    return done.stdout


def version() -> str:
    """The first line of `clang --version`, for reports."""
    return _run([_require_clang(), "--version"], "").decode().splitlines()[0]


@functools.cache
def identity() -> str:
    """Which clang this is, for cache keys: its file, without a process of 30 ms."""
    path = os.path.realpath(_require_clang())
    status = os.stat(path)
    return f"{path} {status.st_size} {status.st_mtime_ns} {' '.join(_FLAGS)}"


def _arguments(target: Target) -> list[str]:
    native = "-mcpu=native" if target.arch == "aarch64" else "-march=native"
    wide = ["-mprefer-vector-width=512"] if target.vector_bits >= 512 else []
    return [_require_clang(), *_FLAGS, native, *wide]


def compile_c(text: str, target: Target) -> bytes:
    """A relocatable ELF object of the C in `text`, for this machine's processor.

    Raises ToolMissing without clang, ToolFailed with clang's messages for what it refuses.
    """
    return _run([*_arguments(target), "-o", "-", "-"], text)


def assembly(text: str, target: Target) -> str:
    """The machine code that `compile_c` would give, as assembly to read."""
    return _run([*_arguments(target), "-S", "-o", "-", "-"], text).decode()
