"""The run for NVIDIA hardware: its shell is sound, and its experiments ask what they say."""

from __future__ import annotations

import json
import re
import subprocess
from pathlib import Path

import pytest

import probe_nv
from compiler import nvrtc

SCRIPT = Path(probe_nv.__file__).with_name("hardware_nv.sh")


def test_the_script_parses_and_explains_itself():
    assert subprocess.run(["bash", "-n", SCRIPT]).returncode == 0
    ran = subprocess.run(["bash", SCRIPT], capture_output=True, text=True)
    assert ran.returncode == 2 and ran.stdout == ""
    assert "prepare FOLDER" in ran.stderr and "run FOLDER OUT" in ran.stderr


def test_its_steps_end_within_ten_minutes_and_exist():
    text = SCRIPT.read_text()
    steps = re.findall(r"^ +run_step (\d+) \w+ ", text, re.M)
    assert len(steps) == 7 and sum(map(int, steps)) < 570
    for path in re.findall(r"\b(?:scripts|test)/[\w/.]+", text):
        assert (SCRIPT.parents[1] / path).exists(), path


@pytest.mark.skipif(bool(nvrtc.missing()), reason=nvrtc.missing() or "-")
def test_the_experiments_ask_each_question_once(monkeypatch, tmp_path, capsys):
    monkeypatch.setenv("EMULATE", "sm_89")
    data = tmp_path / "probe.json"
    assert probe_nv.main(["--json", str(data)]) == 0
    answers = json.loads(data.read_text())
    questions = [each["question"] for each in answers]
    assert len(set(questions)) == len(questions) == 9
    assert questions[:4] == [f"sm_89: QMD V{n}" for n in (2, 3, 4, 5)]
    assert all("at 0x118" in each for each in questions[4:8])
    assert answers[-1] == {"question": "CUDA's libraries in this process", "answer": "none"}
    assert all(each["answer"] for each in answers)
    assert len(capsys.readouterr().out.splitlines()) == 9
