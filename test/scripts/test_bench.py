"""The benchmark measures what it says: wrong results fail, absent libraries do not."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import bench_gpu
from bench_libraries import NumPy
from bench_measure import Cell, Contender, Report, Row, TimedRow, shown, take_turn
from bench_rows import ArrayRow, convolved, rows, run_child
from compiler import nvrtc

ROOT = Path(__file__).resolve().parents[2]
SCRIPT = ROOT / "scripts" / "bench.py"


def bench(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, str(SCRIPT), *arguments],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


def test_rows_have_distinct_names() -> None:
    names = [row.name for row in rows()]
    assert len(set(names)) == len(names)


def test_json_holds_a_median_for_each_row_asked_for() -> None:
    done = bench("--libraries", "numpy", "--only", "^sum|^replay of", "--seconds", "0.02", "--json")
    assert done.returncode == 0, done.stderr
    report = json.loads(done.stdout)
    assert [row["name"] for row in report["rows"]] == [
        "sum 4096x4096 axis 0",
        "sum 4096x4096 axis 1",
        "sum 4096x4096 all",
        "replay of a tiny kernel",
    ]
    for row in report["rows"]:
        assert 0 < row["cells"]["numpy"]["value"] < 10


def test_the_table_has_a_line_for_each_row() -> None:
    done = bench("--libraries", "numpy", "--only", "import|matmul 256", "--seconds", "0.02")
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    assert lines[2].startswith("matmul 256") and lines[3].startswith("import")


@pytest.mark.parametrize(("gpu", "board"), [("AMD", "gfx1100"), ("NV", "sm_90")])
def test_the_rows_of_a_gpus_queues(gpu: str, board: str, monkeypatch: pytest.MonkeyPatch) -> None:
    if gpu == "NV" and nvrtc.missing():
        pytest.skip(nvrtc.missing())
    monkeypatch.setenv("EMULATE", board)
    names = [row.name for row in bench_gpu.rows(gpu)]
    done = bench("--device", gpu, "--libraries", "tinyhw", "--seconds", "0.02", "--json",
                 "--only", f"^({'|'.join(map(re.escape, names))})$")  # fmt: skip
    assert done.returncode == 0, done.stderr
    rows = json.loads(done.stdout)["rows"]
    assert [row["name"] for row in rows] == names
    assert all(row["cells"]["tinyhw"]["value"] > 0 for row in rows)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--libraries", "numpy,jax"], "unknown library 'jax'"),
        (["--only", "("], "is no regular expression"),
        (["--only", "no such row"], "no row matches 'no such row'"),
    ],
)
def test_a_wrong_argument_is_one_sentence(arguments: list[str], message: str) -> None:
    done = bench(*arguments)
    assert done.returncode != 0
    assert message in done.stderr
    assert "Traceback" not in done.stderr


def array_row(function: Callable[..., Any], truth: Callable[..., Any]) -> ArrayRow:
    return ArrayRow(
        "row",
        lambda random: (random.random(100, dtype=np.float32),),
        lambda x: truth,
        lambda torch, x: function,
        function,
    )


@pytest.mark.parametrize(("error", "accepted"), [(0.0, True), (1e-6, True), (1e-3, False)])
def test_a_wrong_result_is_caught(error: float, accepted: bool) -> None:
    contender = array_row(lambda x: x, lambda x: x * 2).contender(NumPy())
    wrong = contender.call(4) + np.float32(error)
    if accepted:
        contender.check(4, wrong)
    else:
        with pytest.raises(AssertionError):
            contender.check(4, wrong)


def test_a_result_for_other_inputs_is_caught() -> None:
    contender = array_row(lambda x: x, lambda x: x * 2).contender(NumPy())
    with pytest.raises(AssertionError):
        contender.check(1, contender.call(2))


def test_a_failure_while_timing_becomes_a_cell_and_a_status() -> None:
    class Failing(TimedRow):
        name = "row"

        def contender(self, library: object) -> Contender:
            def check(index: int, result: object) -> None:
                assert index < 3, "went wrong\nwith details"

            return Contender(lambda index: None, check)

    row = Failing()
    cells = row.measure(["numpy"], 0.01)
    report = Report("here", ["numpy"], [(row, cells)])
    assert cells["numpy"].value is None
    assert report.failures == ["row: numpy: AssertionError: went wrong"]
    assert "failed" in report.line(row, cells)


def test_an_absent_library_is_no_failure() -> None:
    row = array_row(lambda x: x, lambda x: x)
    cells = row.measure(["not_installed_anywhere"], 0.01)
    assert Report("here", ["not_installed_anywhere"], [(row, cells)]).failures == []
    assert shown(cells["not_installed_anywhere"], "s") == "absent"


def test_ratios_above_one_mean_that_tinyhw_is_faster() -> None:
    cells = {"tinyhw": Cell(2.0, 1), "numpy": Cell(3.0, 1), "torch": Cell(error="broken")}
    assert Report.ratio(cells, "numpy") == 1.5
    assert Report.ratio(cells, "torch") is None
    row: Row = array_row(lambda x: x, lambda x: x)
    assert "1.50" in Report("here", ["tinyhw", "numpy"]).line(row, cells)


def test_every_turn_times_at_least_one_call() -> None:
    samples = take_turn(Contender(lambda index: index, lambda index, result: None, 2), 0.0)
    assert len(samples) == 1


def test_a_child_that_fails_is_reported_with_its_last_words(tmp_path: Path) -> None:
    outcome = run_child("no-such-task", "numpy", str(tmp_path))
    assert "KeyError: 'no-such-task'" in outcome["error"]


def test_numpys_convolution_is_a_convolution() -> None:
    random = np.random.default_rng(0)
    x, w = random.random((1, 2, 4, 5)), random.random((3, 2, 3, 3))
    got = convolved(x, w)
    padded = np.pad(x, ((0, 0), (0, 0), (1, 1), (1, 1)))
    for o, i, j in np.ndindex(3, 4, 5):
        np.testing.assert_allclose(
            got[0, o, i, j], (padded[0, :, i : i + 3, j : j + 3] * w[o]).sum()
        )
