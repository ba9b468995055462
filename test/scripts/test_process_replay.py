"""Recordings of kernels: what they hold, and that a change of the compiler shows in them."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import kernel_records
import process_replay
from compiler.amdgpu import gpu_target
from compiler.dtype import dtypes
from compiler.ir import Node, Op
from compiler.llvm import host_target
from kernel_records import MalformedRecord, Record

ROOT = Path(__file__).parents[2]


def param(position: int, *shape: int, dtype=dtypes.float32) -> Node:
    size = 1
    for extent in shape:
        size *= extent
    return Node(Op.PARAM, dtype, (), (position, size)).reshape(shape)


def kernels() -> list[Node]:
    n = Node.variable("n", 1, 40)
    part = param(1, 40).shrink(((0, n),))
    half = param(1, 40, dtype=dtypes.float16).cast(dtypes.float32)
    return [
        param(0, 1).assign(part.reduce(Op.ADD, (0,))),
        param(0, 40).assign(half.alu(Op.MUL, Node.const(-0.0, dtypes.float32)).flip((0,))),
        param(0, 40).assign(param(1, 40).alu(Op.EXP2)),
        param(0, 40).assign(Node.iota(40).cast(dtypes.float32)),
    ]


def recorded() -> list[Record]:
    targets = (host_target(), gpu_target("gfx1100"))
    return [Record.of(ast, target, "", "a_test") for ast in kernels() for target in targets]


def test_a_record_gives_back_the_graph_and_the_target(tmp_path: Path) -> None:
    kernel_records.write(tmp_path / "all.gz", recorded())
    found = list(kernel_records.read(tmp_path / "all.gz").values())
    assert {each.ast() for each in found} == set(kernels())
    assert {each.target_object() for each in found} == {host_target(), gpu_target("gfx1100")}
    assert {each.test for each in found} == {"a_test"}


def test_what_is_no_recording_is_refused(tmp_path: Path, capsys) -> None:
    path = tmp_path / "text"
    path.write_text("no")
    assert process_replay.main(["replay", str(path)]) == 2
    assert "gzip" in capsys.readouterr().err.lower()
    for graph in ('[["ADD","dtypes.float32",[0,1],null]]', '[["RUN","dtypes.void",[],null]]', "{"):
        with pytest.raises(MalformedRecord):
            Record(graph, "", "").ast()
    with pytest.raises(MalformedRecord, match="no target"):
        Record("", '"/bin/sh"', "").target_object()


def test_a_change_of_the_compiler_shows(tmp_path: Path, monkeypatch, capsys) -> None:
    path = tmp_path / "before.gz"
    before = process_replay.rendered({each.key: each for each in recorded()})
    kernel_records.write(path, before.values())
    assert process_replay.main(["replay", str(path)]) == 0
    monkeypatch.setattr("compiler.optimise_gpu.SHORT", 1000)  # one thread adds up alone
    assert process_replay.main(["replay", str(path)]) == 1
    out = capsys.readouterr().out
    assert "8 kernels in both, 1 of them with another source" in out
    assert "=== a_test, llvm for gfx1100" in out and "\n-" in out and "\n+" in out


def test_recording_a_test_run_and_replaying_it_at_another_revision(tmp_path: Path) -> None:
    for folder in ("compiler", "scripts"):
        shutil.copytree(ROOT / folder, tmp_path / folder,
                        ignore=shutil.ignore_patterns("__pycache__"))  # fmt: skip
    (tmp_path / "test_one.py").write_text(
        "from compiler.compile import compile_kernel\n"
        "from compiler.amdgpu import gpu_target\n"
        "from compiler.dtype import dtypes\n"
        "from compiler.ir import Node, Op\n\n"
        "def test_one():\n"
        "    x, y = (Node(Op.PARAM, dtypes.float32, (), (i, 64)) for i in range(2))\n"
        "    compile_kernel(y.assign(x.alu(Op.SQRT)), gpu_target('gfx1100'))\n"
    )

    def git(*arguments: str) -> None:
        identity = ("-c", "user.name=t", "-c", "user.email=t@t")
        subprocess.run(["git", "-C", tmp_path, *identity, *arguments], check=True)

    git("init", "-q")
    git("add", ".")
    git("commit", "-qm", "before")
    facts = tmp_path / "compiler" / "facts.py"
    facts.write_text(facts.read_text().replace('else "E"', 'else "X"'))

    def run(*arguments: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, str(tmp_path / "scripts" / "process_replay.py"), *arguments]
        environment = {**os.environ, "PYTHONPATH": str(tmp_path)}
        return subprocess.run(
            command, cwd=tmp_path, env=environment, capture_output=True, text=True
        )

    made = run("record", "after.gz", "test_one.py")
    assert made.returncode == 0 and "1 kernels in after.gz" in made.stdout, made
    assert run("replay", "after.gz").returncode == 0
    there = run("replay", "after.gz", "--revision", "HEAD")
    assert there.returncode == 1 and "1 of them with another source" in there.stdout, there
    assert "X_64" in there.stdout and "E_64" in there.stdout
    assert "test_one.py::test_one, llvm for gfx1100" in there.stdout
    assert run("replay", "after.gz", "--revision", "nowhere").returncode == 2
