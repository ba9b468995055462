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
    is_small,
    load_cases,
    load_stored_cases,
    module_names,
    on_the_host,
    unsupported,
)

FULL = os.environ.get("TINYHW_FULL") == "1"
PARTS = 12
FOLDED = [  # modules of operators that the host computes, too
    "abs", "add", "and_", "cast", "ceil", "concat", "constantofshape", "div", "equal", "expand",
    "floor", "gather", "greater", "greater_or_equal", "identity", "less", "less_or_equal",
    "max", "min", "mod", "mul", "neg", "nonzero", "not_", "or_", "rangeop", "reducemax",
    "reducemin", "reduceprod", "reducesum", "reshape", "shape", "sign", "size", "slice",
    "split", "squeeze", "sub", "transpose", "unsqueeze", "where", "xor",
]
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


@pytest.mark.parametrize("part", range(4) if FULL else [7])
def test_models_of_older_versions_pass_unless_they_are_listed(part: int) -> None:
    found = {case.name: failure(case) for case in load_stored_cases()[part :: 4 if FULL else 24]}
    failing = {name for name, what in found.items() if what is not None}
    assert failing == set(unsupported()) & set(found), found


@pytest.mark.parametrize("module", FOLDED if FULL else FOLDED[::4])
def test_what_is_known_on_the_host_is_computed_there_with_the_same_result(module: str) -> None:
    folded = 0
    for case in load_cases([module]):
        if is_plain(case) and is_numeric(case) and is_small(case):
            assert failure(on_the_host(case)) is None, case.name
            folded += 1
    assert folded


def check_the_list() -> None:
    cases = {case.name: case for case in load_cases(module_names())}
    listed = unsupported()
    assert not set(listed) - set(cases) - {case.name for case in load_stored_cases()}
    counted = {name for name, case in cases.items() if is_plain(case) and is_numeric(case)}
    assert len(counted - set(listed)) >= PROMISED


if FULL:  # it takes all cases

    def test_the_list_names_cases_and_leaves_as_many_as_promised() -> None:
        check_the_list()
