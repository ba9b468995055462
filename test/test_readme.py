"""What README.md shows works as shown."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

README = Path(__file__).resolve().parents[1] / "README.md"


def test_the_examples_run_one_after_the_other(capsys: pytest.CaptureFixture[str]) -> None:
    names: dict[str, object] = {}
    examples = re.findall(r"```python\n(.*?)```", README.read_text(encoding="utf-8"), re.DOTALL)
    assert len(examples) == 3
    for example in examples:
        exec(example, names)
    *_, last_loss, x_gradient = capsys.readouterr().out.splitlines()
    assert last_loss.startswith("9 ")
    assert x_gradient == f"{[[2.0] * 3, [0.0] * 3, [-2.0] * 3]} {[[1.0] * 3]}"


def test_the_files_of_the_reading_order_are_there() -> None:
    named = set(
        re.findall(r"`((?:tinyhw|compiler|drivers|docs|scripts)/[\w./]*)`", README.read_text())
    )
    assert len(named) >= 6
    assert [name for name in named if not (README.parent / name).exists()] == []
