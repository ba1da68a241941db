"""Plots as inline SVG: bars with their range, and lines. No script, no font, no file beside the page."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from html import escape
from typing import Final

import msgspec

_WIDTH: Final = 760
_LABEL: Final = 190
_ROW: Final = 26
_HEIGHT: Final = 300
_COLOURS: Final = (
    "#0f62fe",
    "#da1e28",
    "#198038",
    "#b28600",
    "#8a3ffc",
    "#007d79",
    "#d12771",
    "#6f6f6f",
    "#005d5d",
    "#a56eff",
    "#ff832b",
    "#4589ff",
)
_OTHERS: Final = "#8d8d8d"


class Bar(msgspec.Struct, frozen=True):
    """A value with the least and the most of its rounds."""

    label: str
    middle: float
    least: float
    most: float


def short(value: float) -> str:
    """A number on an axis or beside a bar."""
    size = abs(value)
    if size >= 1e6:
        return f"{value / 1e6:.3g}M"
    if size >= 1e4:
        return f"{value / 1e3:.3g}k"
    return f"{value:.3g}" if size < 1000 else f"{value:.0f}"


def bars(rows: Sequence[Bar], unit: str) -> str:
    """Horizontal bars, on a logarithmic scale once they differ by more than thirtyfold; lines show the range."""
    if not rows:
        return ""
    values = [each.middle for each in rows if each.middle > 0]
    log = bool(values) and max(values) > 30 * min(values)
    floor = 10 ** math.floor(math.log10(min(values))) if log else 0.0
    # A peer that all but stood still in one round has a range that would leave no room for the others.
    top = max((each.most for each in rows if each.most < 3 * each.middle), default=1.0)
    top = max(top, max((each.middle for each in rows), default=1.0)) or 1.0
    room = _WIDTH - _LABEL - 90

    def place(value: float) -> float:
        value = min(value, top)
        if log:
            return room * math.log10(max(value, floor) / floor) / math.log10(top / floor)
        return room * max(value, 0.0) / top

    height = _ROW * len(rows) + 8
    parts = [f'<svg viewBox="0 0 {_WIDTH} {height}" role="img" aria-label="{escape(unit)}">']
    for number, each in enumerate(rows):
        y = number * _ROW + 4
        colour = _COLOURS[0] if each.label.startswith("fastroute") else _OTHERS
        end, low, high = _LABEL + place(each.middle), _LABEL + place(each.least), _LABEL + place(each.most)
        parts += [
            f'<text x="{_LABEL - 8}" y="{y + 15}" text-anchor="end">{escape(each.label)}</text>',
            f'<rect x="{_LABEL}" y="{y + 3}" width="{max(end - _LABEL, 1):.1f}" height="{_ROW - 10}" fill="{colour}"/>',
            f'<path d="M{low:.1f} {y + 11}H{high:.1f}" stroke="currentColor" stroke-width="1.5"/>',
            f'<text x="{max(end, high) + 6:.1f}" y="{y + 15}">{short(each.middle)}</text>',
        ]
    scale = ", logarithmic" if log else ""
    return "".join(parts) + f"</svg><p class=note>{escape(unit)}{scale}</p>"


def lines(
    series: Mapping[str, Sequence[tuple[float, float]]],
    across: str,
    up: str,
    *,
    log_x: bool = False,
    log_y: bool = False,
    ticks: Mapping[float, str] | None = None,
) -> str:
    """One line for each series, with its name beside; what is not above zero has no place on a logarithmic axis."""
    shown = {
        name: found
        for name, points in series.items()
        if (found := [(x, y) for x, y in points if (x > 0 or not log_x) and (y > 0 or not log_y)])
    }
    if not shown:
        return ""
    xs = [x for points in shown.values() for x, _ in points]
    ys = [y for points in shown.values() for _, y in points]
    left, right, top, bottom = 64, _WIDTH - 170, 12, _HEIGHT - 44
    axis_x = _Axis.of(xs, log_x, left, right)
    axis_y = _Axis.of([*ys, *([] if log_y else [0.0])], log_y, bottom, top)
    parts = [f'<svg viewBox="0 0 {_WIDTH} {_HEIGHT}" role="img" aria-label="{escape(up)} by {escape(across)}">']
    for value in axis_y.ticks():
        y = axis_y.place(value)
        parts.append(f'<path d="M{left} {y:.1f}H{right}" stroke="#8884"/>')
        parts.append(f'<text x="{left - 6}" y="{y + 4:.1f}" text-anchor="end">{short(value)}</text>')
    for value, label in (ticks or {x: short(x) for x in axis_x.ticks()}).items():
        x = axis_x.place(value)
        parts.append(f'<path d="M{x:.1f} {bottom}v5" stroke="currentColor"/>')
        parts.append(f'<text x="{x:.1f}" y="{bottom + 18}" text-anchor="middle">{escape(label)}</text>')
    parts.append(f'<path d="M{left} {top}V{bottom}H{right}" fill="none" stroke="currentColor"/>')
    # A subject has its colour by its place among all, so that it is the same in every plot of a page.
    colours = {name: _COLOURS[number % len(_COLOURS)] for number, name in enumerate(series)}
    for number, (name, points) in enumerate(shown.items()):
        colour = colours[name]
        path = " ".join(f"{axis_x.place(x):.1f},{axis_y.place(y):.1f}" for x, y in points)
        parts.append(f'<polyline points="{path}" fill="none" stroke="{colour}" stroke-width="2"/>')
        parts += [
            f'<circle cx="{axis_x.place(x):.1f}" cy="{axis_y.place(y):.1f}" r="3" fill="{colour}"/>' for x, y in points
        ]
        y_name = top + 10 + number * 18
        parts.append(f'<rect x="{right + 14}" y="{y_name - 9}" width="10" height="10" fill="{colour}"/>')
        parts.append(f'<text x="{right + 30}" y="{y_name}">{escape(name)}</text>')
    return "".join(parts) + f"</svg><p class=note>{escape(up)} by {escape(across)}</p>"


class _Axis(msgspec.Struct, frozen=True):
    """Values to places, straight or by their logarithm."""

    low: float
    high: float
    log: bool
    begin: float
    end: float

    @classmethod
    def of(cls, values: Sequence[float], log: bool, begin: float, end: float) -> _Axis:
        low, high = min(values), max(values)
        if high <= low:
            low, high = (low / 2, high * 2) if log else (low - 0.5, high + 0.5)
        return cls(low, high, log, begin, end)

    def place(self, value: float) -> float:
        if self.log:
            share = math.log(value / self.low) / math.log(self.high / self.low)
        else:
            share = (value - self.low) / (self.high - self.low)
        return self.begin + share * (self.end - self.begin)

    def ticks(self) -> list[float]:
        if self.log:
            first, last = math.floor(math.log10(self.low)), math.ceil(math.log10(self.high))
            steps = (1, 2, 5) if last - first <= 2 else (1,)
            found = [step * 10.0**power for power in range(first, last + 1) for step in steps]
        else:
            step = 10 ** math.floor(math.log10((self.high - self.low) or 1))
            step = next(step * part for part in (0.2, 0.5, 1, 2) if (self.high - self.low) / (step * part) <= 6)
            found = [step * number for number in range(math.floor(self.low / step), math.ceil(self.high / step) + 1)]
        return [value for value in found if self.low <= value * (1 + 1e-9) and value <= self.high * (1 + 1e-9)]
