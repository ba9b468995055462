"""RECORD=... on a tensor program, and scripts/replay.py on what it has written."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

import replay

PROGRAM = """
import numpy
from tinyhw import Tensor

a = numpy.arange(48 * 32, dtype=numpy.float32).reshape(48, 32) / 100
assert numpy.allclose((Tensor(a) @ Tensor(a.T.copy())).numpy(), a @ a.T, rtol=1e-5)
"""


@pytest.fixture(scope="module")
def recording(tmp_path_factory):
    path = str(tmp_path_factory.mktemp("recording") / "product.rec")
    environment = {**os.environ, "AMD": "1", "EMULATE": "gfx1100", "RECORD": path}
    subprocess.run([sys.executable, "-c", PROGRAM], env=environment, check=True)
    return path


def test_a_tensor_program_is_recorded_by_its_environment_and_replays(recording, capfd):
    assert replay.main([recording]) == 0
    out = capfd.readouterr().out
    assert " on an emulated gfx1100: 1 submissions, 1 finished, " in out
    assert out.endswith(" 0 differences\n")


def test_another_board_is_told_apart(recording, capfd):
    assert replay.main([recording, "--board", "gfx1201", "--timeout", "2"]) == 1
    assert "contents of a file: " in capfd.readouterr().out


def test_another_file_is_no_recording(tmp_path, capfd):
    assert replay.main([__file__]) == 2
    assert "does not begin as one" in capfd.readouterr().err
    assert replay.main([str(tmp_path / "none")]) == 2
