"""Bringing up a GPU: every step passes on an emulated board, and a broken one fails in its step."""

from __future__ import annotations

import errno
import json
from html.parser import HTMLParser

import pytest

import bringup_amd
import bringup_amd_low
from autogen import kfd
from bringup_page import bandwidth_plot, latency_plot
from bringup_steps import Outcome, Seen, Step, StepFailed, StepSkipped, line_of, run_steps
from drivers.emulated.system import EmulatedSystem
from drivers.system import StackedSystem, System, address_of

VOID = {"meta"}


class WellFormed(HTMLParser):
    """Every element is closed in order, and nothing is fetched from elsewhere."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.counts: dict[str, int] = {}
        self.feed(text)
        assert self.open == []

    def handle_starttag(self, tag, attributes):
        self.counts[tag] = self.counts.get(tag, 0) + 1
        assert not {"src", "href"} & {name for name, _ in attributes}
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attributes):
        self.counts[tag] = self.counts.get(tag, 0) + 1

    def handle_endtag(self, tag):
        assert self.open.pop() == tag


def statuses(outcomes: list[Outcome]) -> dict[str, str]:
    return {outcome.name: outcome.status for outcome in outcomes}


def test_an_emulated_board_passes_every_step(monkeypatch, tmp_path, capsys):
    monkeypatch.setenv("EMULATE", "gfx1100")
    page, data = tmp_path / "report.html", tmp_path / "report.json"
    status = bringup_amd.main(["--largest", "64K", "--html", str(page), "--json", str(data)])
    printed = capsys.readouterr().out
    assert status == 0, printed
    assert printed.startswith("bring-up of AMD:0, emulated (gfx1100)\npass    node permissions")
    report = json.loads(data.read_text())
    assert report["emulated"] == "gfx1100"
    steps = {step["name"]: step for step in report["steps"]}
    assert [step.name for step in bringup_amd.STEPS] == list(steps)
    assert {step["status"] for step in steps.values()} == {"pass"}
    curves = steps["bandwidth"]["data"]["curves"]
    assert set(curves) == {
        f"{way}, {engine}" for way in ("up", "on device", "down") for engine in ("SDMA", "kernel")
    }
    assert all([size for size, _ in points] == [4096, 16384, 65536] for points in curves.values())
    assert len(steps["launch latency"]["data"]["microseconds"]) == 300
    text = page.read_text()
    assert "Measured emulated (gfx1100)." in text
    assert WellFormed(text).counts["polyline"] == 6


class Broken(StackedSystem):
    """A kernel driver, or a GPU, with one thing wrong."""

    def __init__(self, below: System, wrong: str) -> None:
        super().__init__(below)
        self.wrong = wrong

    def open(self, path: str, flags: int) -> int:
        if self.wrong == "permission" and path == "/dev/kfd":
            raise PermissionError(errno.EACCES, path)
        return super().open(path, flags)

    def ioctl(self, descriptor: int, request: int, argument: int) -> int:
        if self.wrong == "memory" and request == kfd.AMDKFD_IOC_ALLOC_MEMORY_OF_GPU:
            raise OSError(errno.ENOMEM, "no memory")
        return super().ioctl(descriptor, request, argument)

    def kick(self, function: int) -> int:
        return address_of("getpid") if self.wrong == "doorbell" else super().kick(function)


@pytest.fixture
def board():
    system = EmulatedSystem("gfx1100")
    yield system
    system.shut_down()


@pytest.mark.parametrize(
    ("wrong", "failing", "seen", "following"),
    [
        ("permission", ["node permissions"], r"Cannot open /dev/kfd (EACCES)", ""),
        ("memory", ["allocate"], "AMDKFD_IOC_ALLOC_MEMORY_OF_GPU failed (ENOMEM)", "Is VRAM left"),
        ("doorbell", ["SDMA copy", "PM4 NOP"], "the GPU never fetched", "The doorbell or"),
    ],
)
def test_what_is_broken_fails_in_its_own_step(
    board, monkeypatch, wrong, failing, seen, following
):
    monkeypatch.setattr(bringup_amd_low, "TIMEOUT_MS", 50)
    bench = bringup_amd_low.Bench("AMD:0", Broken(board, wrong), 4096)
    try:
        outcomes = run_steps(bringup_amd.STEPS, bench, lambda outcome: None)
    finally:
        bench.close()
    found = statuses(outcomes)
    assert [name for name, status in found.items() if status == "fail"] == failing
    first = [outcome.name for outcome in outcomes].index(failing[0])
    assert set(list(found.values())[:first]) <= {"pass"}
    assert found["matmul"] == "skipped"
    assert seen in outcomes[first].seen
    assert outcomes[first].next.startswith(following)


def test_a_gpu_that_is_not_there_is_a_sentence(board):
    bench = bringup_amd_low.Bench("AMD:3", board, 4096)
    outcomes = run_steps(bringup_amd.STEPS[:4], bench, lambda outcome: None)
    assert statuses(outcomes) == {
        "node permissions": "pass", "version": "pass", "topology": "fail", "VM": "skipped"
    }
    assert "lists 1 GPUs (gfx1100); AMD:3 would be number 3" in outcomes[2].seen


def test_a_failure_blocks_what_needs_it_and_nothing_else():
    def failing(bench):
        raise StepFailed("it smokes", "open a window")

    def absent(bench):
        raise StepSkipped("not on this GPU")

    def broken(bench):
        raise KeyError("nothing")

    steps = [
        Step("a", failing), Step("b", lambda bench: Seen("fine"), ("a",)), Step("c", absent),
        Step("d", lambda bench: Seen("fine", {"n": bench}), ("c",)),
        Step("e", broken, (), "look again"), Step("f", lambda bench: Seen("fine"), ("b",)),
    ]
    shown: list[Outcome] = []
    outcomes = run_steps(steps, 7, shown.append)
    assert shown == outcomes
    assert list(statuses(outcomes).values()) == ["fail", "skipped", "skipped", "pass", "fail",
                                                 "skipped"]  # fmt: skip
    assert outcomes[3].data == {"n": 7}
    assert line_of(outcomes[0]).splitlines()[1].strip() == "next: open a window"
    assert (outcomes[4].seen, outcomes[4].next) == ("KeyError: 'nothing'", "look again")
    (explained,) = run_steps(steps[:1], 7, shown.append, lambda: "the board says: smoke")
    assert explained.next == "the board says: smoke"


@pytest.mark.parametrize("values", [[5.0], [3.0, 3.0], [1.0, 2.0, 4000.0]])
def test_plots_of_few_points_are_drawn(values):
    WellFormed(latency_plot(values))
    WellFormed(bandwidth_plot({"up, SDMA": [(4096, 1e9 * value) for value in values[:1]]}))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [(["--device", "NV"], "'NV' is no AMD device"), (["--largest", "12"], "12 is below 4096"),
     (["--largest", "many"], "'many' is no size")],
)  # fmt: skip
def test_a_wrong_argument_is_one_sentence(arguments, message, capsys):
    with pytest.raises(SystemExit):
        bringup_amd.main(arguments)
    assert message in capsys.readouterr().err
