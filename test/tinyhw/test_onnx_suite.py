"""onnx's backend suite: what passes, and an honest list of what does not.

Of its modules every twelfth runs here, all of them with TINYHW_FULL=1.
"""

from __future__ import annotations

import os

import pytest

from test.tinyhw.onnx_suite import (
    failure,
    is_numeric,
    is_plain,
    load_cases,
    module_names,
    unsupported,
)

FULL = os.environ.get("TINYHW_FULL") == "1"
PARTS = 12
PROMISED = 1100  # plain cases with numeric types


@pytest.mark.parametrize("part", range(PARTS) if FULL else [5])
def test_cases_pass_unless_they_are_listed_with_a_reason(part: int) -> None:
    listed = unsupported()
    wrong = []
    for case in load_cases(module_names()[part::PARTS]):
        found = failure(case)
        if found is None and case.name in listed:
            wrong.append(f"{case.name} is listed as not supported, and passes")
        elif found is not None and case.name not in listed:
            wrong.append(f"{case.name}: {found}")
    assert not wrong, "\n".join(wrong)


def check_the_list() -> None:
    cases = {case.name: case for case in load_cases(module_names())}
    listed = unsupported()
    assert not set(listed) - set(cases)
    counted = {name for name, case in cases.items() if is_plain(case) and is_numeric(case)}
    assert len(counted - set(listed)) >= PROMISED


if FULL:  # it takes all cases

    def test_the_list_names_cases_and_leaves_as_many_as_promised() -> None:
        check_the_list()
