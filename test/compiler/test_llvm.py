"""LLVM in this process: lazily loaded, honest about what it refuses."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from compiler import llvm
from compiler.errors import CompilerError, InvalidKernel, ToolFailed, ToolMissing
from compiler.llvm import assembly, compile_ir, host_target, optimised_ir

ROOT = Path(__file__).resolve().parents[2]
ADD = "define i32 @add(i32 %a, i32 %b) { %c = add i32 %a, %b\n ret i32 %c }"


def test_importing_the_compiler_loads_no_llvm() -> None:
    """Loading takes longer than a small kernel, and some programs only read the cache."""
    program = (
        "import sys, compiler.build, compiler.cache, compiler.elf, compiler.llvm\n"
        "import compiler.decompose, compiler.render.c, compiler.render.llvm_ir\n"
        "sys.exit('llvmlite' in sys.modules or 'elftools' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", program], cwd=ROOT, check=False).returncode == 0


def test_an_object_is_elf() -> None:
    assert compile_ir(ADD, host_target())[:4] == b"\x7fELF"


def test_the_same_text_gives_the_same_bytes() -> None:
    assert compile_ir(ADD, host_target()) == compile_ir(ADD, host_target())


def test_a_text_that_llvm_refuses_names_its_kernel() -> None:
    with pytest.raises(InvalidKernel, match="does not accept the IR of wrong: ") as raised:
        compile_ir("define void @wrong(ptr %x) {\n  store i33 ptr\n}", host_target())
    assert raised.value.operation == "parse_assembly"
    with pytest.raises(InvalidKernel, match="defines no function"):
        compile_ir("nonsense", host_target())


def test_a_text_that_breaks_ssa_is_refused() -> None:
    text = "define i32 @f(i1 %c) {\n br i1 %c, label %a, label %b\na:\n %x = add i32 1, 2\n"
    text += " br label %b\nb:\n ret i32 %x\n}"
    with pytest.raises(InvalidKernel, match="does not dominate"):
        compile_ir(text, host_target())


def test_an_unknown_architecture_is_named() -> None:
    target = replace(host_target(), triple="z80-unknown-unknown")
    with pytest.raises(ToolFailed, match="z80-unknown-unknown"):
        compile_ir(ADD, target)


def test_missing_llvmlite_says_how_to_get_it(monkeypatch: pytest.MonkeyPatch) -> None:
    llvm._llvm.cache_clear()
    monkeypatch.setitem(sys.modules, "llvmlite.binding", None)
    with pytest.raises(ToolMissing, match="pip install llvmlite"):
        llvm._llvm()
    monkeypatch.undo()
    llvm._llvm.cache_clear()


def test_errors_survive_a_trip_to_another_process() -> None:
    import pickle

    error = ToolMissing("There is none.", operation="find", remedy="Install it.", device="CLANG")
    again = pickle.loads(pickle.dumps(error))
    assert type(again) is ToolMissing
    assert str(again) == "There is none. Install it."
    assert (again.operation, again.device, again.code) == ("find", "CLANG", error.code)
    assert isinstance(again, CompilerError)


def test_the_host_is_described_by_its_features() -> None:
    target = host_target("clang", 3)
    assert (target.compiler, target.threads) == ("clang", 3)
    features = set(target.features.split(","))
    if target.vector_bits == 512:
        assert {"+avx512f", "+avx512vl", "+avx512bw", "+avx512dq"} <= features
    elif target.vector_bits == 256:
        assert "+avx2" in features
    assert target.is_cpu


def test_what_is_shown_for_reading() -> None:
    assert "add:" in assembly(ADD, host_target())
    assert "define" in optimised_ir(ADD, host_target())
    assert llvm.version().startswith("llvmlite ")
