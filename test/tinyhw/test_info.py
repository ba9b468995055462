"""`python -m tinyhw info`: one line for each device, and exit statuses."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

import drivers
from drivers.emulated.amd.boards import BOARDS as AMD_BOARDS
from drivers.emulated.nv.boards import BOARDS as NV_BOARDS
from tinyhw.__main__ import main


def run(*arguments: str, **variables: str) -> subprocess.CompletedProcess[str]:
    chosen = (*drivers.DEVICE_NAMES, "EMULATE")
    environment = {k: v for k, v in os.environ.items() if k not in chosen}
    command = [sys.executable, "-m", "tinyhw", *arguments]
    return subprocess.run(
        command, env={**environment, **variables}, capture_output=True, text=True
    )


def test_every_device_has_one_line_with_a_reason():
    ran = run("info")
    assert ran.returncode == 0 and ran.stderr == ""
    *lines, last = ran.stdout.splitlines()
    lines = [line for line in lines if not line.startswith("   ")]
    assert [line[2:].split()[0] for line in lines] == list(drivers.DEVICE_NAMES)
    assert all(line[2:].split()[1] in ("yes", "no") and line.endswith(".") for line in lines)
    assert last == "Device.DEFAULT = 'LLVM'"
    (default,) = [line for line in lines if line.startswith("*")]
    assert "LLVM" in default and "yes" in default


def test_every_gpu_generation_says_what_it_was_run_on():
    lines = [line.strip() for line in run("info").stdout.splitlines() if line.startswith("   ")]
    said = {
        name: tested
        for line in lines
        for names, _, tested in [line.partition(": ")]
        for name in names.split(", ")
    }
    assert said == drivers.generations("AMD") | drivers.generations("NV")
    # Nothing runs here on silicon, and the emulated boards are all that anything runs on.
    boards = {*AMD_BOARDS, *NV_BOARDS}
    assert {name for name, tested in said.items() if tested == "emulated only"} == boards
    assert {tested for name, tested in said.items() if name not in boards} == {"untested"}


def test_the_default_follows_the_environment():
    assert run("info", CLANG="1").stdout.endswith("Device.DEFAULT = 'CLANG'\n")


@pytest.mark.parametrize("variables", [{"LLVM": "x"}, {"DEBUG": "x"}, {"LLVM": "1", "CLANG": "1"}])
def test_a_malformed_environment_is_one_sentence(variables):
    ran = run("info", **variables)
    assert ran.returncode == 1 and ran.stdout == ""
    assert ran.stderr.startswith("tinyhw: The environment") and ran.stderr.count("\n") == 1


def test_a_wrong_command_is_a_usage_error(capsys):
    with pytest.raises(SystemExit) as exit_info:
        main(["inof"])
    assert exit_info.value.code == 2
    assert "invalid choice" in capsys.readouterr().err
