"""A comparison as a small SVG: cost against quality, and the savings with their interval; readable in light and dark."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final
from xml.sax.saxutils import escape

from fastroute.evaluation.report import Report, Side
from fastroute.money import usd_from_picodollars

_WIDTH: Final = 760
_HEIGHT: Final = 344
# Colours are said in full for each of the two: renderers that know no variables draw the light one.
_COLOURS: Final = """
  .paper {{ fill: {paper}; }} text {{ fill: {ink}; }} .soft {{ fill: {soft}; }} .line {{ stroke: {line}; }}
  .policy, .bar {{ fill: {policy}; }} .baseline {{ fill: {baseline}; }} .interval {{ stroke: {ink}; }}
"""
_LIGHT: Final = _COLOURS.format(
    ink="#1f2328", soft="#59636e", line="#d0d7de", paper="#ffffff", policy="#0969da", baseline="#9a6700"
)
_DARK: Final = _COLOURS.format(
    ink="#e6edf3", soft="#9198a1", line="#3d444d", paper="#0d1117", policy="#4493f8", baseline="#d29922"
)
_STYLE: Final = f"""
  text {{ font: 13px system-ui, -apple-system, "Segoe UI", "DejaVu Sans", sans-serif; }}
  text.soft {{ font-size: 12px; }} text.title {{ font-size: 14px; font-weight: 600; }}
  .bar {{ opacity: .35; }} .interval {{ stroke-width: 2; }}
{_LIGHT}
  @media (prefers-color-scheme: dark) {{ {_DARK} }}
"""
# The plane of cost and quality, and the scale of savings.
_LEFT, _RIGHT, _TOP, _BOTTOM = 64, 400, 92, 284
_BAR_LEFT, _BAR_RIGHT, _BAR_TOP = 470, 720, 128


def picture(told: Report) -> str:
    """The SVG, whole."""
    title = f"{told.policy} against {told.baseline}"
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {_WIDTH} {_HEIGHT}" width="{_WIDTH}" height="{_HEIGHT}" '
        f'role="img" aria-label="{escape(title, {chr(34): "&quot;"})}">',
        f"<style>{_STYLE}</style>",
        f'<rect class="paper" width="{_WIDTH}" height="{_HEIGHT}"/>',
        _text(24, 28, title, "title"),
        _text(24, 46, f"{told.total.policy.prompts} prompts of {told.source}, seed {told.seed}", "soft"),
        *_plane(told),
        *_savings(told),
        "</svg>\n",
    ]
    return "\n".join(parts)


def _plane(told: Report) -> Iterable[str]:
    """Cost to the right, quality upwards; up and to the left is better."""
    sides = ((told.policy, told.total.policy, "policy"), (told.baseline, told.total.baseline, "baseline"))
    dearest = max(1, *(side.picodollars for _, side, _ in sides))
    for step in range(5):
        y = _BOTTOM - step * (_BOTTOM - _TOP) // 4
        yield f'<path class="line" d="M{_LEFT} {y}H{_RIGHT}"/>'
        yield _text(_LEFT - 8, y + 4, f"{25 * step} %", "soft", "end")
    yield _text(_LEFT, _BOTTOM + 18, "$0", "soft")
    yield _text(_RIGHT, _BOTTOM + 18, f"${usd_from_picodollars(dearest)}", "soft", "end")
    yield _text((_LEFT + _RIGHT) // 2, _BOTTOM + 40, "cost in all", "soft", "middle")
    measured = all(side.checked for _, side, _ in sides)
    label = "right answers" if measured else "right answers: none was expected, so quality is not measured"
    yield _text(_LEFT, _TOP - 14, label, "soft")
    taken: list[tuple[int, int]] = []
    for name, side, kind in sides:
        x = _LEFT + side.picodollars * (_RIGHT - _LEFT) // dearest
        y = _BOTTOM - (side.right * (_BOTTOM - _TOP) // side.checked if side.checked else 0)
        yield f'<circle class="{kind}" cx="{x}" cy="{y}" r="6"/>'
        # Names stand above their points, and above one another where these lie close.
        crowded = any(abs(x - one) < 220 and abs(y - other) < 18 for one, other in taken)
        taken.append((x, y))
        anchor = "end" if x > (_LEFT + _RIGHT) // 2 else "start"
        yield _text(x, y - (28 if crowded else 12), _labelled(name, side), "", anchor)


def _savings(told: Report) -> Iterable[str]:
    yield _text(_BAR_LEFT, _TOP - 14, "savings, with their 95 % interval", "soft")
    share, money = told.savings_share, told.savings
    if share is None or money is None:
        yield _text(_BAR_LEFT, _BAR_TOP, "nothing to compare")
        return
    lowest = min(0, share.low, share.value)
    highest = max(100_000, share.high, share.value)

    def x(value: int) -> int:
        return _BAR_LEFT + (value - lowest) * (_BAR_RIGHT - _BAR_LEFT) // (highest - lowest)

    begin, end = sorted((x(0), x(share.value)))
    middle = _BAR_TOP + 14
    yield f'<rect class="bar" x="{begin}" y="{_BAR_TOP}" width="{end - begin}" height="28"/>'
    yield f'<path class="line" d="M{x(0)} {_BAR_TOP - 10}V{_BAR_TOP + 38}"/>'
    yield (
        f'<path class="interval" fill="none" d="M{x(share.low)} {middle - 6}V{middle + 6}M{x(share.low)} {middle}'
        f'H{x(share.high)}M{x(share.high)} {middle - 6}V{middle + 6}"/>'
    )
    yield _text(x(0), _BAR_TOP + 54, "0 %", "soft", "middle")
    if x(100_000) - x(0) > 50:
        yield _text(x(100_000), _BAR_TOP + 54, "100 %", "soft", "middle")
    sign = "-" if money.value < 0 else ""
    yield _text(
        _BAR_LEFT, _BAR_TOP + 84, f"{_share(share.value)} ({_share(share.low)} to {_share(share.high)})", "title"
    )
    yield _text(
        _BAR_LEFT,
        _BAR_TOP + 104,
        f"{sign}${usd_from_picodollars(abs(money.value))} over {told.savings_pairs} prompts",
        "soft",
    )


def _labelled(name: str, side: Side) -> str:
    short = name if len(name) <= 24 else f"{name[:23]}…"
    return f"{short} {_share(side.right * 100_000 // side.checked)}" if side.checked else short


def _share(thousandths: int) -> str:
    tenths = (abs(thousandths) + 50) // 100
    return f"{'-' if thousandths < 0 and tenths else ''}{tenths // 10}.{tenths % 10} %"


def _text(x: int, y: int, text: str, kind: str = "", anchor: str = "start") -> str:
    return f'<text x="{x}" y="{y}" class="{kind}" text-anchor="{anchor}">{escape(text)}</text>'
