"""How the benchmark measures a row and prints it."""

from __future__ import annotations

import statistics
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from bench_libraries import Library, open_library

WARM_UPS = 3  # TinyJit runs, then captures, then replays
TURNS = 5  # how often each library gets the machine within a row


@dataclass(frozen=True)
class Contender:
    """One library in one row: a call to time, and a check of what the call returned.

    Both take the number of the call, which selects its inputs; `call` returns when the result
    could be read. A call does its work `repeats` times, and the time is that of one of them.
    """

    call: Callable[[int], Any]
    check: Callable[[int, Any], None]
    repeats: int = 1


class Row(ABC):
    """One line of the table."""

    name: str
    unit: str = "s"
    libraries: tuple[str, ...] = ("tinyhw", "numpy", "torch", "tinygrad")
    # How much one call does, and in what; for the rate beside tinyhw's time.
    work: float = 0.0
    work_unit: str = ""

    @abstractmethod
    def measure(self, names: Sequence[str], seconds: float) -> dict[str, Cell]:
        """Cells by the names of the libraries asked for."""


@dataclass(frozen=True)
class Cell:
    """What came out for one library in one row: a median, or why there is none."""

    value: float | None = None
    samples: int = 0
    error: str = ""
    absent: bool = False  # not installed, which is no failure


class TimedRow(Row):
    """A row whose contenders run in this process and take turns."""

    @abstractmethod
    def contender(self, library: Library) -> Contender:
        """Makes inputs and compiles for one library."""

    def measure(self, names: Sequence[str], seconds: float) -> dict[str, Cell]:
        """Prepares every library, then times them in turns, and checks before and after."""
        cells: dict[str, Cell] = {}
        ready: dict[str, Contender] = {}
        samples: dict[str, list[float]] = {}
        for name in names:
            try:
                library = open_library(name)
            except ImportError as error:
                cells[name] = Cell(error=f"cannot be imported: {error}", absent=name != "tinyhw")
                continue
            try:
                contender = self.contender(library)
                for index in range(WARM_UPS):
                    contender.check(index, contender.call(index))
            except Exception as error:
                cells[name] = Cell(error=sentence(error))
                continue
            ready[name], samples[name] = contender, []
        for _ in range(TURNS):
            for name in list(ready):
                try:
                    samples[name] += take_turn(ready[name], seconds / TURNS)
                except Exception as error:
                    cells[name] = Cell(error=sentence(error))
                    del ready[name]
        for name in ready:
            cells[name] = Cell(statistics.median(samples[name]), len(samples[name]))
        return cells


def take_turn(contender: Contender, seconds: float) -> list[float]:
    """Times calls for a while, after one call that gets the machine's caches and cores back."""
    samples: list[float] = []
    contender.call(0)
    end_s = time.perf_counter() + seconds
    index = 0
    while time.perf_counter() < end_s or not samples:
        index += 1
        start_s = time.perf_counter()
        result = contender.call(index)
        samples.append((time.perf_counter() - start_s) / contender.repeats)
    contender.check(index, result)
    return samples


def sentence(error: BaseException) -> str:
    """An exception as the table shows it: its class and the first line of what it says."""
    lines = str(error).strip().splitlines() or [""]
    return f"{type(error).__name__}: {lines[0][:120]}"


@dataclass
class Report:
    """Everything measured, and how it is shown."""

    machine: str
    libraries: Sequence[str]
    results: list[tuple[Row, dict[str, Cell]]] = field(default_factory=list)

    @property
    def failures(self) -> list[str]:
        """One line for each library that failed in a row, the merely absent ones left out."""
        return [
            f"{row.name}: {name}: {cell.error}"
            for row, cells in self.results
            for name, cell in cells.items()
            if cell.error and not cell.absent
        ]

    @property
    def others(self) -> list[str]:
        """The libraries that tinyhw is compared with."""
        return [name for name in self.libraries if name != "tinyhw"]

    def heading(self) -> str:
        """The table's first lines."""
        columns = [f"{name:>10}" for name in self.libraries]
        columns += [f"{'× ' + name:>12}" for name in self.others]
        return f"{self.machine}\n{'':34}{''.join(columns)}   tinyhw's rate"

    def line(self, row: Row, cells: dict[str, Cell]) -> str:
        """One row of the table."""
        columns = [f"{shown(cells.get(name), row.unit):>10}" for name in self.libraries]
        for name in self.others:
            ratio = self.ratio(cells, name)
            columns.append(f"{'' if ratio is None else f'{ratio:.2f}':>12}")
        ours = cells.get("tinyhw")
        rate = (
            f"   {row.work / ours.value / 1e9:.1f} {row.work_unit}"
            if (row.work and ours and ours.value)
            else ""
        )
        return f"{row.name:34}{''.join(columns)}{rate}"

    @staticmethod
    def ratio(cells: dict[str, Cell], other: str) -> float | None:
        """The other library's value divided by tinyhw's; None where one of them is missing."""
        ours, theirs = cells.get("tinyhw"), cells.get(other)
        if ours is None or theirs is None or not ours.value or theirs.value is None:
            return None
        return theirs.value / ours.value

    def as_json(self) -> dict[str, Any]:
        """The report as plain data: values in the row's unit, ratios as in the table."""
        return {
            "machine": self.machine,
            "rows": [
                {
                    "name": row.name,
                    "unit": row.unit,
                    "work": row.work,
                    "work_unit": row.work_unit,
                    "cells": {
                        name: {"value": cell.value, "samples": cell.samples, "error": cell.error}
                        for name, cell in cells.items()
                    },
                    "ratios": {name: self.ratio(cells, name) for name in self.others},
                }
                for row, cells in self.results
            ],
            "failures": self.failures,
        }


def shown(cell: Cell | None, unit: str) -> str:
    """A cell's text: a time in the unit that suits it, megabytes, or a word for no value."""
    if cell is None:
        return "-"
    if cell.value is None:
        return "absent" if cell.absent else "failed"
    if unit != "s":
        return f"{cell.value:.1f} {unit}"
    for scale, name in ((1.0, "s"), (1e-3, "ms"), (1e-6, "µs")):
        if cell.value >= scale:
            return f"{cell.value / scale:.3g} {name}"
    return f"{cell.value / 1e-9:.3g} ns"


def measure_rows(rows: Sequence[Row], report: Report, *, seconds: float, live: bool) -> None:
    """Measures each row into the report, and prints it as soon as it is known if `live`."""
    if live:
        print(report.heading(), flush=True)
    for row in rows:
        cells = row.measure([n for n in report.libraries if n in row.libraries], seconds)
        report.results.append((row, cells))
        if live:
            print(report.line(row, cells), flush=True)
    if live:
        for failure in report.failures:
            print(f"failed: {failure}")
