"""The fuzzers: a very short run of each, and that they find what is there to find."""

from __future__ import annotations

import pytest
from hypothesis import strategies as st

import fuzz
from compiler import symbolic
from compiler.ir import Node


@pytest.mark.parametrize("what", fuzz.PROPERTIES)
def test_a_short_run(what: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert fuzz.main([what, "--seed", "7", "--seconds", "0", "--examples", "10"]) == 0
    assert f"{what}: 1 batches of 10 programs" in capsys.readouterr().out


def test_a_mistake_of_the_simplifier_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    right = symbolic.mod

    def wrong(a: Node, b: Node) -> Node:
        return right(a, b) if b.arg != 12 else right(a, b) + 1

    monkeypatch.setattr(symbolic, "mod", wrong)
    with pytest.raises(AssertionError):
        fuzz.batch("index", 1, 400)


def test_a_seed_stands_for_the_same_programs() -> None:
    runs: list[list[int]] = []
    for seed in (3, 3, 4):
        drawn: list[int] = []
        fuzz.search(lambda data, d=drawn: d.append(data.draw(st.integers(0, 1 << 60))), seed, 20)
        runs.append(drawn)
    assert runs[0] == runs[1] != runs[2]


def test_a_batch_that_fails_is_shown(monkeypatch, capsys) -> None:
    monkeypatch.setattr(fuzz, "run_batch", lambda what, seed, examples: "wrong" * (seed == 5))
    assert fuzz.main(["shapes", "--seconds", "60", "--seed", "4"]) == 1
    assert "--batch --seed 5 --examples 200 shapes" in capsys.readouterr().out
