"""A bring-up's report as one HTML page: a table of the steps, and plots as inline SVG."""

from __future__ import annotations

import math
import statistics
from collections.abc import Mapping, Sequence
from html import escape
from typing import Final

from bringup_steps import FAIL, PASS, Report
from drivers.memory import format_bytes

WIDTH, HEIGHT = 720, 360
LEFT, RIGHT, TOP, BOTTOM = 64, 16, 32, 44
BINS: Final = 40
TAIL: Final = 0.99  # the histogram ends at this quantile; what lies beyond is counted

MARKS = {PASS: "✓", FAIL: "✗"}
STYLE = """
:root { color-scheme: light dark; --ink: #1b1f24; --soft: #5b6470; --line: #d8dce1;
  --page: #ffffff; --s0: #0b62c4; --s1: #b3460f; --s2: #14795c; --bad: #b3261e; --good: #14795c }
@media (prefers-color-scheme: dark) { :root { --ink: #e6e9ec; --soft: #9aa4af; --line: #363c44;
  --page: #15181c; --s0: #6cb0ff; --s1: #f0925b; --s2: #5fc9a4; --bad: #ff8a80; --good: #5fc9a4 } }
body { font: 15px/1.5 system-ui, sans-serif; color: var(--ink); background: var(--page);
  max-width: 60rem; margin: 2rem auto; padding: 0 1rem }
h1 { font-size: 1.4rem; margin-bottom: 0 } h2 { font-size: 1.1rem; margin-top: 2rem }
p.where { color: var(--soft); margin-top: .2rem }
.scroll { overflow-x: auto }
table { border-collapse: collapse; width: 100%; font-variant-numeric: tabular-nums }
th, td { text-align: left; vertical-align: top; padding: .3rem .8rem .3rem 0;
  border-bottom: 1px solid var(--line) }
td.status { white-space: nowrap } .pass td.status { color: var(--good) }
.fail td.status { color: var(--bad); font-weight: 600 } .skipped { color: var(--soft) }
.next { color: var(--bad) } td.number, th.number { text-align: right }
svg { width: 100%; height: auto; max-width: 45rem } svg text { fill: var(--soft); font-size: 12px }
svg .axis { stroke: var(--line) } svg .bar { fill: var(--s0) } svg .mark { stroke: var(--s1) }
.legend { display: flex; flex-wrap: wrap; gap: .2rem 1.2rem; padding: 0; list-style: none }
.legend svg { width: 2rem; height: .8rem; margin-right: .4rem }
""" + "".join(
    f".c{i} {{ stroke: var(--s{i}); fill: none; stroke-width: 2 }} "
    f"circle.c{i} {{ fill: var(--s{i}) }}\n"
    for i in range(3)
)


def page(report: Report) -> str:
    """The whole page; it refers to nothing outside itself."""
    verdict = "passed" if report.passed else "failed"
    title = f"{report.title}: {report.device}"
    parts = [
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">',
        '<meta name="viewport" content="width=device-width">',
        f"<title>{escape(title)}</title><style>{STYLE}</style></head><body>",
        f"<h1>{escape(title)} {verdict}</h1>",
        f'<p class="where">Measured {escape(report.where)}.</p>',
        _steps(report),
    ]
    for outcome in report.outcomes:
        if "curves" in outcome.data:
            parts += ["<h2>Bandwidth over size</h2>", bandwidth_plot(outcome.data["curves"])]
        if "microseconds" in outcome.data:
            parts += ["<h2>Launch latency</h2>", latency_plot(outcome.data["microseconds"])]
    return "\n".join([*parts, "</body></html>\n"])


def _steps(report: Report) -> str:
    rows = []
    for outcome in report.outcomes:
        following = f'<div class="next">next: {escape(outcome.next)}</div>' if outcome.next else ""
        rows.append(
            f'<tr class="{outcome.status}"><td class="status">{MARKS.get(outcome.status, "–")} '
            f"{outcome.status}</td><td>{escape(outcome.name)}</td>"
            f"<td>{escape(outcome.seen)}{following}</td>"
            f'<td class="number">{outcome.seconds * 1e3:.0f}</td></tr>'
        )
    head = '<tr><th></th><th>step</th><th>seen</th><th class="number">ms</th></tr>'
    return f'<div class="scroll"><table>{head}{"".join(rows)}</table></div>'


def _frame(label: str, content: Sequence[str]) -> str:
    return (
        f'<svg viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-label="{escape(label)}">'
        f"{''.join(content)}</svg>"
    )


def _text(x: float, y: float, anchor: str, text: str) -> str:
    return f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}">{escape(text)}</text>'


def _rule(x1: float, y1: float, x2: float, y2: float, kind: str = "axis") -> str:
    return f'<line class="{kind}" x1="{x1:.1f}" y1="{y1:.1f}" x2="{x2:.1f}" y2="{y2:.1f}"/>'


def bandwidth_plot(curves: Mapping[str, Sequence[tuple[int, float]]]) -> str:
    """Bytes a second over the size of a copy, both logarithmic; dashed lines are kernels."""
    sizes = sorted({size for points in curves.values() for size, _ in points})
    rates = [rate for points in curves.values() for _, rate in points]
    low, high = math.floor(math.log10(min(rates))), math.ceil(math.log10(max(rates)))
    high = max(high, low + 1)
    first, last = math.log2(sizes[0]), max(math.log2(sizes[-1]), math.log2(sizes[0]) + 1)

    def x(size: float) -> float:
        return LEFT + (math.log2(size) - first) / (last - first) * (WIDTH - LEFT - RIGHT)

    def y(rate: float) -> float:
        return HEIGHT - BOTTOM - (math.log10(rate) - low) / (high - low) * (HEIGHT - TOP - BOTTOM)

    content = []
    for power in range(low, high + 1):
        content.append(_rule(LEFT, y(10**power), WIDTH - RIGHT, y(10**power)))
        content.append(_text(LEFT - 8, y(10**power) + 4, "end", f"{10.0 ** (power - 9):g}"))
    for i, size in enumerate(sizes):
        if i % 2 == 0 or len(sizes) < 8:
            content.append(_text(x(size), HEIGHT - BOTTOM + 18, "middle", _short(size)))
    content.append(_text(LEFT - 8, TOP - 16, "end", "GB/s"))
    content.append(_text(WIDTH - RIGHT, HEIGHT - 6, "end", "bytes of a copy"))
    legend = []
    ways = list(dict.fromkeys(name.partition(", ")[0] for name in curves))
    for name, points in curves.items():
        way, _, engine = name.partition(", ")
        kind = f'class="c{ways.index(way) % 3}"'
        dash = ' stroke-dasharray="6 4"' if engine == "kernel" else ""
        path = " ".join(f"{x(size):.1f},{y(rate):.1f}" for size, rate in points)
        content.append(f'<polyline {kind}{dash} points="{path}"/>')
        content += [
            f'<circle {kind} cx="{x(size):.1f}" cy="{y(rate):.1f}" r="3">'
            f"<title>{escape(name)}: {_short(size)}, {rate / 1e9:.2f} GB/s</title></circle>"
            for size, rate in points
        ]
        swatch = f'<svg viewBox="0 0 32 12"><path {kind}{dash} d="M0 6H32"/></svg>'
        legend.append(f"<li>{swatch}{escape(name)}</li>")
    plot = _frame("Bandwidth over the size of a copy, in GB/s", content)
    return f'{plot}<ul class="legend">{"".join(legend)}</ul>{_table(curves, sizes)}'


def _short(size_bytes: int) -> str:
    return format_bytes(size_bytes).replace(".0 ", " ")


def _table(curves: Mapping[str, Sequence[tuple[int, float]]], sizes: Sequence[int]) -> str:
    head = "".join(f'<th class="number">{escape(name)}</th>' for name in curves)
    found = {name: dict(points) for name, points in curves.items()}
    rows = "".join(
        f"<tr><td>{_short(size)}</td>"
        + "".join(
            f'<td class="number">{found[name][size] / 1e9:.3f}</td>' if size in found[name]
            else "<td></td>" for name in curves
        )
        + "</tr>"
        for size in sizes
    )
    return (
        f'<details><summary>The numbers, in GB/s</summary><div class="scroll"><table>'
        f"<tr><th>size</th>{head}</tr>{rows}</table></div></details>"
    )


def latency_plot(microseconds: Sequence[float]) -> str:
    """How often a launch took how long, with the median marked."""
    values = sorted(microseconds)
    last = values[min(len(values) - 1, int(TAIL * len(values)))]
    first = values[0]
    step = max((last - first) / BINS, 1e-3)
    counts = [0] * (BINS + 1)
    for value in values:
        counts[min(BINS, int((value - first) / step))] += 1
    beyond, counts = counts[BINS], counts[:BINS]
    most = max(*counts, 1)

    def x(value: float) -> float:
        return LEFT + (value - first) / (step * BINS) * (WIDTH - LEFT - RIGHT)

    def y(count: float) -> float:
        return HEIGHT - BOTTOM - count / most * (HEIGHT - TOP - BOTTOM)

    content = [
        _rule(LEFT, y(0), WIDTH - RIGHT, y(0)), _text(LEFT - 8, y(0) + 4, "end", "0"),
        _text(LEFT - 8, y(most) + 4, "end", f"{most}"),
    ]
    for i, count in enumerate(counts):
        start = first + i * step
        content.append(
            f'<rect class="bar" x="{x(start) + 1:.1f}" y="{y(count):.1f}" '
            f'width="{x(start + step) - x(start) - 2:.1f}" height="{y(0) - y(count):.1f}">'
            f"<title>{start:.0f} to {start + step:.0f} µs: {count}</title></rect>"
        )
    for i in range(0, BINS + 1, BINS // 5):
        value = first + i * step
        content.append(_text(x(value), HEIGHT - BOTTOM + 18, "middle", f"{value:.0f}"))
    median = statistics.median(values)
    if first <= median <= last:
        content.append(_rule(x(median), y(0), x(median), TOP, "mark"))
        content.append(_text(x(median) + 6, TOP + 10, "start", f"median {median:.0f} µs"))
    content.append(_text(WIDTH - RIGHT, HEIGHT - 6, "end", "µs from submission to the end"))
    more = f"<p>{beyond} of {len(values)} launches took longer.</p>" if beyond else ""
    return _frame("Distribution of launch latencies in µs", content) + more
