"""The house has four floors, and imports only go down: tinyhw, drivers, compiler, autogen."""

from __future__ import annotations

import ast
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import pytest

from tinyhw._floors import LOWER_FLOORS, check_floors

ROOT = Path(__file__).resolve().parents[1]
FLOORS = ("tinyhw", "drivers", "compiler", "autogen")
OUTSIDE = ("test", "scripts")  # import the packages, and are imported by none
REFERENCE = "torch"  # only tests and the benchmark compare with it
REFERENCE_USERS = ("test/", "scripts/bench")


def imported_modules(path: Path, package: str) -> Iterator[tuple[int, str]]:
    """Every module that a source file names in an import, wherever in the file it stands.

    Yields (line, absolute dotted name); `package` is the dotted package of the file, against
    which relative imports are resolved.
    """
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"), str(path))):
        if isinstance(node, ast.Import):
            yield from ((node.lineno, alias.name) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            parents = package.split(".") if package else []
            base = parents[: len(parents) - node.level + 1] if node.level else []
            stem = ".".join([*base, *([node.module] if node.module else [])])
            if stem:
                yield node.lineno, stem
            if not node.module:  # `from . import x` names modules
                for alias in node.names:
                    yield node.lineno, f"{stem}.{alias.name}" if stem else alias.name
        elif isinstance(node, ast.Call):
            yield from dynamic_imports(node)


def dynamic_imports(call: ast.Call) -> Iterator[tuple[int, str]]:
    """The module named by `import_module("x")` or `__import__("x")`."""
    name = getattr(call.func, "attr", getattr(call.func, "id", None))
    if name in ("import_module", "__import__") and call.args:
        first = call.args[0]
        if isinstance(first, ast.Constant) and isinstance(first.value, str):
            yield call.lineno, first.value


def sources(root: Path) -> Iterator[Path]:
    """Every Python file of the house, tests and scripts included."""
    for top in (*FLOORS, *OUTSIDE):
        yield from sorted((root / top).rglob("*.py"))


def violations(root: Path) -> list[str]:
    """Every import that breaks a rule, as `file:line: what is wrong`."""
    found = []
    for path in sources(root):
        relative = path.relative_to(root)
        floor = relative.parts[0]
        package = ".".join(relative.parts[:-1])
        for line, module in imported_modules(path, package):
            top = module.split(".")[0]
            where = f"{relative.as_posix()}:{line}"
            if top == REFERENCE and not relative.as_posix().startswith(REFERENCE_USERS):
                found.append(f"{where}: imports {module}")
            if floor not in FLOORS:
                continue
            if top in FLOORS and FLOORS.index(top) < FLOORS.index(floor):
                found.append(f"{where}: {floor} imports {module}, which stands above it")
            if top in OUTSIDE:
                found.append(f"{where}: {floor} imports {module}, which is no part of the library")
    return found


def test_imports_only_go_down() -> None:
    assert violations(ROOT) == []


def test_every_floor_is_there() -> None:
    for floor in FLOORS:
        assert list((ROOT / floor).rglob("*.py")), f"{floor} has no source to check"


@pytest.mark.parametrize(
    ("path", "source", "count"),
    [
        ("drivers/cpu/queue.py", "from tinyhw.tensor import Tensor", 1),
        ("drivers/queue.py", "from compiler import ir\nimport autogen.x\nimport drivers.a", 0),
        ("compiler/lower.py", "def f():\n    import drivers.queue as q", 1),
        ("compiler/lower.py", "if TYPE_CHECKING:\n    from drivers import Device", 1),
        ("compiler/render/llvm.py", "from ...tinyhw import x", 1),
        ("compiler/render/llvm.py", "from ... import drivers", 1),
        ("compiler/render/llvm.py", "from .. import ir\nfrom . import c\nfrom ..ir import Node", 0),
        ("compiler/x.py", "import importlib\nimportlib.import_module('tinyhw.nn')", 1),
        ("autogen/kfd.py", "from compiler.elf import load", 1),
        ("tinyhw/nn/a.py", "from scripts.bench import main", 1),
        ("tinyhw/nn/a.py", "import test.conftest", 1),
        ("tinyhw/nn/a.py", "import torch", 1),
        ("tinyhw/nn/a.py", "def load():\n    from torch import nn", 1),
        ("scripts/train_mnist.py", "import torch", 1),
        ("scripts/bench.py", "import torch\nfrom tinyhw import Tensor", 0),
        ("test/tinyhw/test_a.py", "import torch\nimport scripts.bench", 0),
    ],
)
def test_the_check_sees_each_kind_of_wrong_import(
    tmp_path: Path, path: str, source: str, count: int
) -> None:
    target = tmp_path / path
    target.parent.mkdir(parents=True)
    target.write_text(source)
    assert len(violations(tmp_path)) == count


def test_the_lower_floors_here_are_accepted() -> None:
    check_floors()


@pytest.mark.parametrize("name", LOWER_FLOORS)
@pytest.mark.parametrize("shape", ["{}.py", "{}/__init__.py"])
def test_somebody_elses_module_is_named_in_the_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, shape: str
) -> None:
    impostor = tmp_path / shape.format(name)
    impostor.parent.mkdir(exist_ok=True)
    impostor.write_text("")
    monkeypatch.delitem(sys.modules, name, raising=False)
    monkeypatch.syspath_prepend(str(tmp_path))
    with pytest.raises(ImportError, match=f"needs its own package `{name}`") as raised:
        check_floors()
    assert str(tmp_path / name) in str(raised.value)


def test_a_module_made_by_hand_is_named_too(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "compiler", ModuleType("compiler"))
    with pytest.raises(ImportError, match="made at run time"):
        check_floors()


def test_a_missing_floor_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in LOWER_FLOORS:
        monkeypatch.delitem(sys.modules, name, raising=False)
    monkeypatch.setattr(sys, "path", [])
    monkeypatch.setattr(sys, "meta_path", [])
    with pytest.raises(ImportError, match="`drivers` is missing"):
        check_floors()
