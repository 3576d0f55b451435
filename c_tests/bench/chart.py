# SPDX-License-Identifier: Apache-2.0
"""docs/benchmarks.svg: for every column a bar as long as the ratio to the limit, and a mark where the promise ends."""

from __future__ import annotations

from html import escape

from promises import RATIOS
from results import COLUMNS, KINDS, Results

WIDTH = 760
LABELS = 190
SPAN = 470
MOST = 5.0
"""The ratio at the right edge; a longer bar is cut there, its number still tells."""
ROW = 24
BAR = 15

STYLE = """
text { font: 13px system-ui, sans-serif; fill: #24292f }
.head { font-weight: 600 }
.small { font-size: 11px; fill: #57606a }
.ours { fill: #1f77b4 } .over { fill: #d1242f }
.limit { stroke: #57606a; stroke-dasharray: 3 3 } .promise { stroke: #24292f; stroke-width: 2 }
@media (prefers-color-scheme: dark) {
  text { fill: #e6edf3 } .small { fill: #9198a1 } .ours { fill: #58a6ff } .over { fill: #ff7b72 }
  .limit { stroke: #9198a1 } .promise { stroke: #e6edf3 }
}
"""

TITLES = {
    "shared": "Shared RAM: times memcpy, or a load of 8 bytes",
    "private": "Private RAM: times the cheapest system call",
}


def position(ratio: float) -> float:
    """Where a ratio is on the horizontal axis."""
    return LABELS + SPAN * min(ratio, MOST) / MOST


def bar(label: str, ratio: float, promise: float | None, top: float) -> list[str]:
    """One row: name, bar, number, and the mark of the promise."""
    kind = "ours" if promise is None or ratio <= promise else "over"
    middle = top + BAR - 3
    lines = [
        f'<text x="{LABELS - 10}" y="{middle}" text-anchor="end">{escape(label)}</text>',
        f'<rect class="{kind}" x="{LABELS}" y="{top}" width="{position(ratio) - LABELS:.1f}" height="{BAR}" rx="2"/>',
        f'<text x="{max(position(ratio), position(promise or 0)) + 6:.1f}" y="{middle}">{ratio:.2f}</text>',
    ]
    if promise is not None:
        x = f"{position(promise):.1f}"
        lines.append(f'<line class="promise" x1="{x}" x2="{x}" y1="{top - 2}" y2="{top + BAR + 2}"/>')
    return lines


def group(results: Results, kind: str, top: float) -> tuple[list[str], float]:
    """The bars of one kind of RAM from ``top`` on, and where they end."""
    lines = [f'<text class="head" x="{LABELS}" y="{top + 12}">{TITLES[kind]}</text>']
    first = top = top + ROW
    for column in COLUMNS:
        ratio = results.ratio(kind, "ours", column)
        if ratio is not None:
            lines += bar(column, ratio, RATIOS.get((kind, column)), top)
            top += ROW
    x = f"{position(1):.1f}"
    lines.append(f'<line class="limit" x1="{x}" x2="{x}" y1="{first - 4}" y2="{top}"/>')
    return lines, top + 14


def draw(results: Results) -> str:
    """The picture as SVG, readable on light and dark pages."""
    top, lines = 14.0, []
    for kind in KINDS:
        if results.subjects(kind):
            added, top = group(results, kind, top)
            lines += added
    legend = "bar: our median over that of the limit (dashed, 1.0); thick mark: the most that is promised"
    lines.append(f'<text class="small" x="{WIDTH / 2:.0f}" y="{top + 4}" text-anchor="middle">{legend}</text>')
    head = f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {top + 16:.0f}" width="{WIDTH}" role="img">'
    title = "<title>What a read of guest memory costs, in multiples of the limit</title>"
    note = "<!-- SPDX-License-Identifier: Apache-2.0; written by make bench -->"
    return "\n".join([head, note, title, f"<style>{STYLE}</style>", *lines, "</svg>"]) + "\n"
