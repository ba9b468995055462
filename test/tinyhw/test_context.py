"""Settings and their errors, counters, small helpers."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from tinyhw import Tensor
from tinyhw.context import (
    DEBUG,
    Context,
    ContextVar,
    GlobalCounters,
    Timing,
    ansilen,
    ansistrip,
    colored,
    getenv,
)
from tinyhw.errors import SettingError


def test_an_environment_variable_has_the_type_of_its_default(monkeypatch):
    monkeypatch.setenv("TINYHW_TEST", " 7 ")
    assert getenv("TINYHW_TEST") == 7
    assert getenv("TINYHW_TEST", 1.5) == 7.0 and isinstance(getenv("TINYHW_TEST", 1.5), float)
    assert getenv("TINYHW_TEST", "text") == "7"
    monkeypatch.setenv("TINYHW_TEST", "")
    assert getenv("TINYHW_TEST", 3) == 3


def test_a_malformed_variable_is_named_with_its_value(monkeypatch):
    monkeypatch.setenv("TINYHW_TEST", "x")
    with pytest.raises(SettingError, match="TINYHW_TEST is 'x', but it must be a whole number"):
        getenv("TINYHW_TEST", 0)
    with pytest.raises(SettingError, match="must be a number"):
        getenv("TINYHW_TEST", 0.5)


def test_a_setting_reads_its_variable_when_it_is_used(monkeypatch):
    monkeypatch.setenv("TINYHW_TEST", "2")
    try:
        setting = ContextVar("TINYHW_TEST", 0)
        assert setting == 2 and setting >= 2 and not setting > 2 and setting < 3 and setting <= 2
        assert bool(setting) and int(setting) == 2 and repr(setting) == "TINYHW_TEST=2"
        monkeypatch.setenv("TINYHW_TEST", "y")
        assert setting == 2
        with pytest.raises(SettingError):
            _ = ContextVar("TINYHW_TEST", 0).value
    finally:
        del ContextVar.all["TINYHW_TEST"]


def test_context_sets_nests_and_restores():
    before = DEBUG.value
    with Context(DEBUG=5):
        assert DEBUG == 5
        with Context(DEBUG=1):
            assert DEBUG == 1
        assert DEBUG == 5
    assert DEBUG == before
    with pytest.raises(RuntimeError), Context(DEBUG=9):
        raise RuntimeError
    assert DEBUG == before


def test_context_decorates_functions_that_call_themselves():
    @Context(DEBUG=3)
    def count(n: int) -> list[int]:
        return [DEBUG.value, *(count(n - 1) if n else [])]

    before = DEBUG.value
    assert count(2) == [3, 3, 3]
    assert DEBUG == before


def test_an_unknown_setting_is_an_error_that_lists_them():
    with pytest.raises(SettingError, match=r"no setting named DEBGU; there are .*DEBUG"):
        Context(DEBGU=1)


def test_counters_reset_but_memory_stays():
    GlobalCounters.kernel_count += 3
    used = GlobalCounters.mem_used
    GlobalCounters.reset()
    assert GlobalCounters.kernel_count == GlobalCounters.global_ops == 0
    assert GlobalCounters.global_mem == 0 and GlobalCounters.time_sum_s == 0.0
    assert GlobalCounters.mem_used == used


def test_timing_prints_and_can_be_read(capsys):
    with Timing("load: ", on_exit=lambda ns: f", {ns > 0}") as timing:
        pass
    assert timing.elapsed_ns > 0
    out = capsys.readouterr().out
    assert out.startswith("load: ") and out.endswith(" ms, True\n")
    with Timing(enabled=False):
        pass
    assert capsys.readouterr().out == ""


def test_colours_have_no_width(monkeypatch):
    from tinyhw import context

    context._no_color.cache_clear()
    monkeypatch.delenv("NO_COLOR", raising=False)
    text = colored("kernel", "green")
    assert text != "kernel" and ansilen(text) == 6 and ansistrip(text) == "kernel"
    assert colored("kernel", None) == "kernel"
    context._no_color.cache_clear()
    monkeypatch.setenv("NO_COLOR", "1")
    assert colored("kernel", "green") == "kernel"
    context._no_color.cache_clear()


def test_a_malformed_debug_ends_a_program_with_the_typed_error():
    program = "from tinyhw import Tensor\nTensor([1.0]).add(1).realize()"
    environment = {**os.environ, "DEBUG": "x"}
    ran = subprocess.run(
        [sys.executable, "-c", program], env=environment, capture_output=True, text=True
    )
    assert ran.returncode != 0
    assert "SettingError: The environment variable DEBUG is 'x'" in ran.stderr


def test_training_is_a_setting() -> None:
    ones = Tensor.ones(100)
    with Context(TRAINING=1):
        assert Tensor.training
        assert (ones.dropout(0.5).numpy() == 0).any()
        with Tensor.test():
            assert (ones.dropout(0.5).numpy() == 1).all()
    assert not Tensor.training
    Tensor.training = True
    try:
        assert (ones.dropout(0.5).numpy() == 0).any()
    finally:
        Tensor.training = False
