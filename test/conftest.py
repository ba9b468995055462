"""Settings of the whole suite: hypothesis profiles, and no silent skips where CI forbids them."""

from __future__ import annotations

import gc
import os
import signal
from collections.abc import Generator

import pytest
from hypothesis import HealthCheck, settings

# Compiling a kernel takes milliseconds once and microseconds ever after: no per-example deadline.
# The same examples every time; `--hypothesis-profile=search` looks at new ones.
_QUIET = [HealthCheck.too_slow]
settings.register_profile(
    "tinyhw", deadline=None, suppress_health_check=_QUIET, print_blob=True, derandomize=True
)
settings.register_profile("search", deadline=None, suppress_health_check=_QUIET, print_blob=True)
settings.load_profile("tinyhw")

# CI installs everything that a test may want, so there a skip means that CI is broken.
REQUIRE_ALL = os.environ.get("TINYHW_REQUIRE_ALL") == "1"


def _fail_if_skipped(report: pytest.TestReport | pytest.CollectReport) -> None:
    if REQUIRE_ALL and report.skipped and not hasattr(report, "wasxfail"):
        report.outcome = "failed"
        report.longrepr = f"skipped although TINYHW_REQUIRE_ALL=1: {report.longrepr}"


def pytest_configure() -> None:
    """Tests that interrupt work where the suite runs in the background of a shell, too."""
    signal.signal(signal.SIGINT, signal.default_int_handler)


def pytest_collection_finish() -> None:
    """What is there before the first test need not be looked at by each that collects garbage."""
    gc.collect()
    gc.freeze()


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item,
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Fails a skipped test where everything is required, unless it needs special hardware."""
    report = yield
    if item.get_closest_marker("hardware") is None:
        _fail_if_skipped(report)
    return report


@pytest.hookimpl(wrapper=True)
def pytest_make_collect_report() -> Generator[None, pytest.CollectReport, pytest.CollectReport]:
    """Fails a module that skips itself at import where everything is required."""
    report = yield
    _fail_if_skipped(report)
    return report
