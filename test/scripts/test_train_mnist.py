"""The training script as a user runs it: it learns, and says plainly when it cannot."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tinyhw.nn.datasets import DataUnavailable, load_mnist

SCRIPT = Path(__file__).resolve().parents[2] / "scripts" / "train_mnist.py"
TIMEOUT_S = 600
FULL = os.environ.get("TINYHW_FULL") == "1"


@pytest.fixture
def mnist_is_there() -> None:
    try:
        load_mnist()
    except DataUnavailable as error:
        pytest.skip(str(error))


def command(*arguments: str) -> list[str]:
    return [sys.executable, str(SCRIPT), *arguments]


def train(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        command(*arguments),
        env={**os.environ, **environment},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=TIMEOUT_S,
        check=False,
    )


@pytest.mark.usefixtures("mnist_is_there")
def test_the_defaults_reach_98_percent() -> None:
    done = train("--target", "98", LLVM="1")
    assert done.returncode == 0, done.stdout + done.stderr
    lines = done.stdout.splitlines()
    assert lines[0] == "training on LLVM"
    assert "100/100  loss " in lines[-2] and lines[-2].endswith("images/s")
    assert lines[-1].startswith("test accuracy ") and "10,000 digits" in lines[-1]
    assert done.stderr == ""


@pytest.mark.usefixtures("mnist_is_there")
def test_it_learns_on_clang_and_misses_a_target_out_of_reach() -> None:
    done = train("--steps", "30", "--batch", "256", "--target", "99.99", CLANG="1")
    assert done.returncode == 1
    assert done.stdout.startswith("training on CLANG\n")
    *_, result, verdict = done.stdout.splitlines()
    assert float(result.split()[2]) > 90
    assert verdict.endswith("% is below the target of 99.99 %.")
    assert done.stderr == ""


if FULL:  # two minutes

    @pytest.mark.usefixtures("mnist_is_there")
    def test_it_learns_on_an_emulated_board() -> None:
        """Twelve steps of 64 digits reach 79 %; chance is 10 %."""
        done = train("--steps", "12", "--batch", "64", "--target", "60", AMD="1", EMULATE="1")
        assert done.returncode == 0, done.stdout + done.stderr
        assert done.stdout.startswith("training on AMD\n")


@pytest.mark.usefixtures("mnist_is_there")
def test_an_interrupt_is_one_sentence() -> None:
    with subprocess.Popen(
        command("--steps", "100000", "--batch", "32"),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONUNBUFFERED": "1"},
    ) as running:
        assert running.stdout is not None
        while "10/100000" not in running.stdout.readline():
            assert running.poll() is None
        running.send_signal(signal.SIGINT)
        _, complaint = running.communicate(timeout=TIMEOUT_S)
    assert running.returncode == 130
    assert complaint == "\ntrain_mnist: interrupted before the end; nothing was saved.\n"


def test_missing_data_is_one_sentence_with_the_remedy(tmp_path: Path) -> None:
    nowhere = "http://127.0.0.1:9"  # the discard port: nobody listens
    done = train(
        XDG_CACHE_HOME=str(tmp_path),
        http_proxy=nowhere,
        https_proxy=nowhere,
        no_proxy="",
        NO_PROXY="",
        PIP_NO_INDEX="1",
    )
    assert done.returncode == 1
    assert done.stderr.startswith("train_mnist: mnist could not be fetched (")
    assert f"(uncompressed) into {tmp_path}" in done.stderr
    assert done.stderr.count("\n") == 1


@pytest.mark.parametrize("option", ["--steps", "--batch"])
def test_a_size_below_one_is_refused(option: str) -> None:
    done = train(option, "0")
    assert done.returncode == 2
    assert "0 is below 1" in done.stderr
