"""From a tensor expression to a CodeObject, in process and through the disk cache."""

from __future__ import annotations

from pathlib import Path

import pytest

from compiler import compile as compiling
from compiler.compile import compile_kernel
from compiler.dtype import dtypes
from compiler.ir import Node, Op
from compiler.llvm import host_target

F32 = dtypes.float32


def param(position: int, size: int) -> Node:
    return Node(Op.PARAM, F32, (), (position, size))


@pytest.fixture
def empty_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setattr(compiling, "_compiled", {})


def test_every_buffer_of_the_expression_is_an_argument_even_when_folded_away(
    empty_cache: None,
) -> None:
    zero = Node.const(0, F32)
    unused = param(1, 4).alu(Op.CMPLT, zero).alu(Op.WHERE, zero, zero)
    code = compile_kernel(param(0, 4).assign(unused), host_target())
    assert [p.kind for p in code.params] == ["buffer", "buffer"]
    assert [p.written for p in code.params] == [True, False]


def test_a_kernel_is_compiled_once_and_then_comes_from_memory_or_disk(
    empty_cache: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    ast = param(0, 8).assign(param(1, 8).alu(Op.SQRT))
    first = compile_kernel(ast, host_target())
    assert compile_kernel(ast, host_target()) is first
    monkeypatch.setattr(compiling, "_compiled", {})
    monkeypatch.setattr(compiling, "_compile", None)
    again = compile_kernel(ast, host_target())
    assert again.image == first.image and again is not first


@pytest.mark.parametrize(
    "level, words",
    [
        (3, ["kernel E_8", "axis i0 of 8"]),
        (4, ["define void @E_8"]),
        (5, ["scalar kernel:", "RANGE"]),
        (6, ["instructions:", "STORE"]),
        (7, [".globl\tE_8"]),
    ],
)
def test_each_debug_level_prints_its_step_and_the_earlier_ones(
    level: int, words: list[str], capsys: pytest.CaptureFixture[str], empty_cache: None
) -> None:
    ast = param(0, 8).assign(param(1, 8).alu(Op.SQRT))
    compile_kernel(ast, host_target(), debug=level)
    printed = capsys.readouterr().out
    assert all(word in printed for word in [*words, "kernel E_8"])


def test_counts_are_of_the_work_and_the_memory_of_a_kernel(empty_cache: None) -> None:
    rows, columns = 6, 10
    value = param(1, rows * columns).reshape((rows, columns))
    total = value.alu(Op.MUL, value).reduce(Op.ADD, (1,)).reshape((rows,))
    code = compile_kernel(param(0, rows).assign(total), host_target())
    assert code.operations == 2 * rows * columns
    assert code.bytes_moved == 4 * (rows * columns + rows)
