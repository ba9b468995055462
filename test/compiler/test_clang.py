"""clang as a process: found under its names, silent on disk, quoted when it refuses."""

from __future__ import annotations

from pathlib import Path

import pytest

from compiler import clang
from compiler.build import disassemble, render
from compiler.dtype import dtypes
from compiler.elf import link
from compiler.errors import ToolFailed, ToolMissing
from compiler.ir import Node, Op
from compiler.llvm import host_target
from test.compiler.linear_kernels import const, elementwise, end, kernel, load, loop, param, store

needs_clang = pytest.mark.skipif(clang.find_clang() is None, reason="no clang in PATH")
TARGET = host_target("clang")


def fake(folder: Path, name: str, script: str = "exit 0") -> Path:
    path = folder / name
    path.write_text(f"#!/bin/sh\n{script}\n")
    path.chmod(0o755)
    return path


@pytest.fixture
def only(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty folder that is all of PATH."""
    monkeypatch.setenv("PATH", str(tmp_path))
    return tmp_path


def test_the_plain_name_is_preferred_to_a_version_and_the_newest_version_to_others(
    only: Path,
) -> None:
    assert clang.find_clang() is None
    fake(only, "clang-14")
    assert clang.find_clang() == str(only / "clang-14")
    fake(only, "clang-19")
    assert clang.find_clang() == str(only / "clang-19")
    fake(only, "clang")
    assert clang.find_clang() == str(only / "clang")


def test_a_missing_clang_says_how_to_get_one(only: Path) -> None:
    with pytest.raises(ToolMissing, match="apt-get install clang") as raised:
        clang.compile_c("", TARGET)
    assert "LLVM" in str(raised.value)


def test_a_clang_that_fails_is_quoted(only: Path) -> None:
    fake(only, "clang", "echo 'internal error 42' >&2; exit 3")
    with pytest.raises(ToolFailed, match="ended with 3 and said:\ninternal error 42"):
        clang.compile_c("", TARGET)


def test_a_clang_that_cannot_run_is_named(only: Path) -> None:
    path = only / "clang"
    path.write_bytes(b"\x7fELF and no more")
    path.chmod(0o755)
    with pytest.raises(ToolFailed, match="cannot be run: Exec format error"):
        clang.compile_c("", TARGET)


def test_a_clang_that_hangs_is_ended(only: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fake(only, "clang", "while :; do :; done")
    monkeypatch.setattr(clang, "TIMEOUT_S", 0.2)
    with pytest.raises(ToolFailed, match=r"took longer than 0\.2 s"):
        clang.compile_c("", TARGET)


@needs_clang
def test_c_becomes_an_object_without_a_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    image = link(clang.compile_c("int f(int x) { return 3 * x; }", TARGET), "f")
    assert image.bytes
    assert list(tmp_path.iterdir()) == []


@needs_clang
def test_wrong_c_is_refused_with_clangs_words() -> None:
    with pytest.raises(ToolFailed, match="undeclared identifier 'y'"):
        clang.compile_c("int f(int x) { return y; }", TARGET)


@needs_clang
def test_which_clang_it_is() -> None:
    assert "clang" in clang.version()
    assert clang.identity() == clang.identity()


@needs_clang
def test_a_kernel_as_assembly_to_read() -> None:
    linear = elementwise(64, 1, dtypes.float32, [dtypes.float32], lambda x: x)
    assert "kernel:" in disassemble(linear, TARGET)


def test_the_text_reads_like_c_written_by_hand() -> None:
    out, a, n = (
        param(0, dtypes.float32, 100),
        param(1, dtypes.float32, 100),
        Node.variable("n", 1, 9),
    )
    i = loop(100)
    x = load(a, i)
    value = Node(Op.MUL, x.dtype, (Node(Op.ADD, x.dtype, (x, const(1.5, x.dtype))), x))
    linear = kernel([out, a, n], i, store(out, i, value), end(i))
    lines = [line.strip() for line in render(linear, TARGET).splitlines()]
    start = lines.index("for (long i0 = 0; i0 < 100; i0 += 1) {")
    assert lines[start + 1 : start + 4] == [
        "const float load0 = data1[i0];",
        "data0[i0] = (load0 + 1.5f) * load0;",
        "}",
    ]
    assert "long var_n" in render(linear, TARGET)
