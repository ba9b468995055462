"""Steps of a bring-up: run in order, each for itself, with what was seen and what to do next.

A step is a function of a *bench*, on which it leaves what later steps build on. It returns what it
saw, or raises: `StepFailed` says what to do next, and any other error is told with the step's own
hint. A step that needs one that failed is skipped, so the first failure stands out.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, Generic, TypeVar

from compiler.errors import TinyhwError

Bench = TypeVar("Bench")

PASS, FAIL, SKIPPED = "pass", "fail", "skipped"


class StepFailed(Exception):
    """A step saw something wrong: what, and what to do next."""

    def __init__(self, seen: str, remedy: str = "") -> None:
        super().__init__(seen)
        self.seen, self.remedy = seen, remedy


class StepSkipped(Exception):
    """A step cannot be run here, which is no failure: the reason."""


@dataclass(frozen=True)
class Seen:
    """What a step saw: a sentence, and numbers for the report."""

    text: str
    data: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Step(Generic[Bench]):
    """One named step; `hint` is what to do next when an error does not say it itself."""

    name: str
    run: Callable[[Bench], Seen]
    needs: tuple[str, ...] = ()
    hint: str = ""


@dataclass(frozen=True)
class Outcome:
    """How a step ended."""

    name: str
    status: str
    seen: str
    next: str
    seconds: float
    data: dict[str, Any]


def run_steps(
    steps: Sequence[Step[Bench]], bench: Bench, show: Callable[[Outcome], None],
    explain: Callable[[], str] = str,
) -> list[Outcome]:
    """Runs every step that can be run; `show` is called after each.

    `explain` is asked after a failure, for what somebody else knows of it (an emulated board).
    """
    outcomes: list[Outcome] = []
    blocked: set[str] = set()  # failed, or skipped because of one that has
    for step in steps:
        missing = [name for name in step.needs if name in blocked]
        if missing:
            outcome = Outcome(step.name, SKIPPED, f"needs {missing[0]}", "", 0.0, {})
        else:
            outcome = _run(step, bench, explain)
        if missing or outcome.status == FAIL:
            blocked.add(step.name)
        outcomes.append(outcome)
        show(outcome)
    return outcomes


def _run(step: Step[Bench], bench: Bench, explain: Callable[[], str]) -> Outcome:
    start_s = time.perf_counter()
    status, remedy = PASS, ""
    data: dict[str, Any] = {}
    try:
        seen = step.run(bench)
        text, data = seen.text, seen.data
    except StepSkipped as reason:
        status, text = SKIPPED, str(reason)
    except StepFailed as failure:
        status, text, remedy = FAIL, failure.seen, failure.remedy or step.hint
    except TinyhwError as error:  # its sentence ends with its own remedy, if it has one
        status, text = FAIL, str(error)
        remedy = "" if getattr(error, "remedy", "") else step.hint
    except (OSError, ArithmeticError, LookupError, ValueError) as error:
        status, text, remedy = FAIL, f"{type(error).__name__}: {error}", step.hint
    if status == FAIL:
        remedy = explain() or remedy
    return Outcome(step.name, status, text, remedy, time.perf_counter() - start_s, data)


def line_of(outcome: Outcome) -> str:
    """An outcome as the terminal shows it: one line, and a second for what to do next."""
    line = f"{outcome.status:<8}{outcome.name:<18}{outcome.seen}"
    return f"{line}\n{'':<26}next: {outcome.next}" if outcome.next else line


@dataclass(frozen=True)
class Report:
    """A whole bring-up: on what it ran, and how its steps ended."""

    title: str
    device: str
    emulated: str
    outcomes: list[Outcome]

    @property
    def passed(self) -> bool:
        """Whether no step failed; one that was skipped for another's failure never hides it."""
        return all(outcome.status != FAIL for outcome in self.outcomes)

    @property
    def where(self) -> str:
        """Where the figures come from."""
        return f"emulated ({self.emulated})" if self.emulated else "on silicon"

    def as_data(self) -> dict[str, Any]:
        """For JSON."""
        return {
            "title": self.title, "device": self.device, "emulated": self.emulated,
            "passed": self.passed, "steps": [asdict(outcome) for outcome in self.outcomes],
        }
