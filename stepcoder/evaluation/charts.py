"""Charts as inline SVG text: no script, no network, colours by CSS class so that a page can have two schemes.

Every chart has a title and a description for people who do not see it. Coordinates are those of a 380 x 220 box that
the page scales; 380 is about the width of a phone, so that text stays legible there.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from markupsafe import Markup, escape

WIDTH, HEIGHT = 380.0, 220.0
LEFT, RIGHT, TOP, BOTTOM = 52.0, 10.0, 20.0, 38.0
MAX_POINTS = 400
"""Longer curves are thinned to this many points, each the mean of the steps it stands for."""
SMOOTH_FROM = 20
"""Curves with at least this many points also get a moving mean."""
LARGEST = 1e100
"""Values beyond it, infinity and NaN included, are not drawn."""

Point = tuple[float, float]


@dataclass(frozen=True)
class Boundary:
    """Where a stage begins on the x axis."""

    at: float
    name: str


@dataclass(frozen=True)
class Bar:
    """A value with its interval, in a row of its own."""

    name: str
    value: float
    low: float
    high: float
    note: str
    """What stands behind the name, for example the value as text."""
    css: str = "s1"


def line_chart(
    title: str,
    segments: Sequence[Sequence[Point]],
    boundaries: Sequence[Boundary] = (),
    *,
    x_label: str,
    y_label: str,
    y_range: tuple[float, float] | None = None,
    percent: bool = False,
) -> Markup:
    """A curve over steps; it is interrupted between segments (stages) and where a value is missing.

    Args:
        title: what the curve shows.
        segments: points of each stage, x ascending.
        boundaries: where each stage begins.
        x_label: name and unit.
        y_label: name and unit.
        y_range: lowest and highest value that must be on the axis; the data widen it.
        percent: whether values are shares to be written as percentages.
    """
    finite = [[point for point in segment if abs(point[1]) <= LARGEST] for segment in segments]
    drawn = [thin(segment) for segment in finite if segment]
    points = [point for segment in drawn for point in segment]
    if not points:
        return Markup("")
    ends = [boundary.at for boundary in boundaries]
    x_axis = _Axis.over([*(x for x, _ in points), *ends], LEFT, WIDTH - RIGHT, exact=True)
    y_axis = _Axis.over([*(y for _, y in points), *(y_range or ())], HEIGHT - BOTTOM, TOP)
    body = _frame(x_axis, y_axis, x_label, y_label, percent) + _boundaries(boundaries, x_axis)
    for segment in drawn:
        smooth = len(segment) >= SMOOTH_FROM
        body += _path(segment, x_axis, y_axis, "faint" if smooth else "curve", dots=len(segment) <= 30)
        if smooth:
            body += _path(moving_mean(segment), x_axis, y_axis, "curve")
    values = [y for segment in finite for _, y in segment]
    say = percent_text if percent else number_text
    described = (
        f"{y_label}: first {say(values[0])}, last {say(values[-1])}, lowest {say(min(values))}, "
        f"highest {say(max(values))}, over {len(values)} steps in {len(drawn)} stages."
    )
    return _svg(title, described, body)


def stacked_shares(
    title: str,
    xs: Sequence[float],
    shares: Sequence[Sequence[float]],
    names: Sequence[str],
    boundaries: Sequence[Boundary] = (),
    *,
    x_label: str,
    y_label: str,
) -> Markup:
    """Shares that sum to one, stacked over steps, the first name at the bottom, in the colours that `shade` gives.

    Args:
        title: what the chart shows.
        xs: `(steps,)`, ascending.
        shares: `(steps, names)`, each row summing to one.
        names: what is stacked.
        boundaries: where each stage begins.
        x_label: name and unit.
        y_label: name and unit.
    """
    if not xs:
        return Markup("")
    stride = math.ceil(len(xs) / MAX_POINTS)
    kept = sorted({*range(0, len(xs), stride), len(xs) - 1})
    x_axis = _Axis.over([xs[0], xs[-1], *(boundary.at for boundary in boundaries)], LEFT, WIDTH - RIGHT, exact=True)
    y_axis = _Axis(0.0, 1.0, HEIGHT - BOTTOM, TOP)
    # A step's shares hold until the next step: steps, not slopes.
    right = xs[-1] if len(xs) > 1 else x_axis.high
    edges = [
        (xs[i], xs[j] if j is not None else right, shares[i]) for i, j in zip(kept, [*kept[1:], None], strict=True)
    ]
    body = Markup("")
    for level in range(len(names)):
        upper = [(x, sum(row[: level + 1])) for begin, end, row in edges for x in (begin, end)]
        lower = [(x, sum(row[:level])) for begin, end, row in edges for x in (begin, end)]
        outline = " ".join(f"{x_axis.at(x):.1f},{y_axis.at(y):.1f}" for x, y in [*upper, *reversed(lower)])
        body += Markup('<polygon class="l{}" points="{}"><title>{}</title></polygon>').format(
            shade(level, len(names)), outline, names[level]
        )
    body += _frame(x_axis, y_axis, x_label, y_label, percent=True) + _boundaries(boundaries, x_axis)
    ends = "; ".join(
        f"{name}: {percent_text(first)} at first, {percent_text(last)} at the end"
        for name, first, last in zip(names, shares[0], shares[-1], strict=True)
    )
    return _svg(title, ends, body)


def interval_chart(title: str, bars: Sequence[Bar], *, x_label: str, zero: bool = False) -> Markup:
    """Values with their intervals, one under the other.

    Args:
        title: what the chart shows.
        bars: one row each; shares or differences of shares.
        x_label: name and unit.
        zero: whether to mark zero: an interval clear of it is a difference that the data show.
    """
    if not bars:
        return Markup("")
    height = 22.0 + 40.0 * len(bars) + BOTTOM - 10.0
    limits = [value for bar in bars for value in (bar.low, bar.high, bar.value)]
    x_axis = _Axis.over([*limits, 0.0], 14.0, WIDTH - 14.0)
    bottom = height - BOTTOM + 4.0
    body = Markup("")
    for tick in x_axis.ticks(5):
        x = x_axis.at(tick)
        body += Markup('<line class="grid" x1="{0:.1f}" x2="{0:.1f}" y1="8" y2="{1:.1f}"/>').format(x, bottom)
        body += Markup('<text class="tick" x="{:.1f}" y="{:.1f}" text-anchor="middle">{}</text>').format(
            x, bottom + 13.0, percent_tick(tick).removesuffix("%" if zero else "")
        )
    if zero:
        body += Markup('<line class="zero" x1="{0:.1f}" x2="{0:.1f}" y1="8" y2="{1:.1f}"/>').format(
            x_axis.at(0), bottom
        )
    for row, bar in enumerate(bars):
        y = 30.0 + 40.0 * row
        low, high, middle = x_axis.at(bar.low), x_axis.at(bar.high), x_axis.at(bar.value)
        body += Markup('<text class="name halo" x="14" y="{:.1f}">{} <tspan class="note">{}</tspan></text>').format(
            y - 8.0, bar.name, bar.note
        )
        body += Markup(
            '<line class="{0} whisker" x1="{1:.1f}" x2="{2:.1f}" y1="{3:.1f}" y2="{3:.1f}"/>'
            '<line class="{0} whisker" x1="{1:.1f}" x2="{1:.1f}" y1="{4:.1f}" y2="{5:.1f}"/>'
            '<line class="{0} whisker" x1="{2:.1f}" x2="{2:.1f}" y1="{4:.1f}" y2="{5:.1f}"/>'
            '<circle class="{0} dot" cx="{6:.1f}" cy="{3:.1f}" r="5"/>'
        ).format(bar.css, low, high, y + 4.0, y, y + 8.0, middle)
    body += _x_label(x_label, height)
    described = "; ".join(f"{bar.name} {bar.note}" for bar in bars)
    return _svg(title, described, body, height)


def point_chart(title: str, bars: Sequence[Bar], *, y_label: str) -> Markup:
    """Values with their intervals side by side, joined by a line: pass@1 through the stages."""
    if not bars:
        return Markup("")
    y_axis = _Axis.over([*(bar.low for bar in bars), *(bar.high for bar in bars), 0.0], HEIGHT - BOTTOM, TOP)
    step = (WIDTH - LEFT - RIGHT) / len(bars)
    centres = [LEFT + step * (index + 0.5) for index in range(len(bars))]
    body = _y_grid(y_axis, y_label, percent=True)
    line = " ".join(f"{x:.1f},{y_axis.at(bar.value):.1f}" for x, bar in zip(centres, bars, strict=True))
    body += Markup('<polyline class="curve" points="{}"/>').format(line)
    for x, bar in zip(centres, bars, strict=True):
        body += Markup(
            '<line class="s1 whisker" x1="{0:.1f}" x2="{0:.1f}" y1="{1:.1f}" y2="{2:.1f}"/>'
            '<circle class="s1 dot" cx="{0:.1f}" cy="{3:.1f}" r="4"><title>{4}</title></circle>'
            '<text class="name" x="{0:.1f}" y="{5:.1f}" text-anchor="middle">{6}</text>'
            '<text class="note" x="{0:.1f}" y="{7:.1f}" text-anchor="middle">{8}</text>'
        ).format(
            x,
            y_axis.at(bar.low),
            y_axis.at(bar.high),
            y_axis.at(bar.value),
            f"{bar.name}: {bar.note}",
            HEIGHT - BOTTOM + 15.0,
            bar.name,
            HEIGHT - BOTTOM + 29.0,
            percent_text(bar.value),
        )
    described = "; ".join(f"{bar.name} {bar.note}" for bar in bars)
    return _svg(title, described, body)


def shade(level: int, levels: int) -> int:
    """Which of the eight colours a level gets: the first and the last, with the others spread between them."""
    return round(7 * level / (levels - 1)) if levels > 1 else 0


def thin(points: Sequence[Point]) -> list[Point]:
    """At most `MAX_POINTS` points: means of x and y over runs of neighbours."""
    size = math.ceil(len(points) / MAX_POINTS)
    if size <= 1:
        return list(points)
    runs = [points[begin : begin + size] for begin in range(0, len(points), size)]
    return [(sum(x for x, _ in run) / len(run), sum(y for _, y in run) / len(run)) for run in runs]


def moving_mean(points: Sequence[Point]) -> list[Point]:
    """The centred mean over a tenth of the points; at the ends over those that are there."""
    reach = max(1, len(points) // 20)
    means = []
    for index, (x, _) in enumerate(points):
        near = points[max(0, index - reach) : index + reach + 1]
        means.append((x, sum(y for _, y in near) / len(near)))
    return means


def percent_text(share: float, signed: bool = False) -> str:
    """A share as a percentage with one decimal or, `signed`, a difference of shares in percentage points."""
    rounded = round(100.0 * share, 1) + 0.0
    return f"{rounded:+.1f} pt" if signed else f"{rounded:.1f}%"


def percent_tick(share: float) -> str:
    """A share as a percentage without needless decimals, for an axis."""
    return f"{round(100.0 * share, 6) + 0.0:g}%"


def number_text(value: float) -> str:
    """A number with three significant digits."""
    if value == 0.0:
        return "0"
    return f"{value:.3g}" if 1e-3 <= abs(value) < 1e5 else f"{value:.1e}"


@dataclass(frozen=True)
class _Axis:
    """Maps values between `low` and `high` to coordinates between `begin` and `end`."""

    low: float
    high: float
    begin: float
    end: float

    @classmethod
    def over(cls, values: Sequence[float], begin: float, end: float, exact: bool = False) -> _Axis:
        low, high = min(values), max(values)
        if high - low < 1e-12 * max(1.0, abs(high)):
            # One value: room on both sides, so that it can be seen and the scale is not zero.
            room = abs(high) * 0.1 or 0.5
            low, high = low - (0.0 if exact else room), high + room
        elif not exact:
            step = _step(high - low, 4)
            low, high = math.floor(low / step + 1e-9) * step, math.ceil(high / step - 1e-9) * step
        return cls(low, high, begin, end)

    def at(self, value: float) -> float:
        return self.begin + (value - self.low) / (self.high - self.low) * (self.end - self.begin)

    def ticks(self, count: int, whole: bool = False) -> list[float]:
        step = _step(self.high - self.low, count)
        if whole:
            step = max(1.0, round(step))
        first = math.ceil(self.low / step - 1e-9)
        last = math.floor(self.high / step + 1e-9)
        return [index * step for index in range(first, last + 1)]


def _step(span: float, count: int) -> float:
    """The round distance between about `count` ticks: 1, 2 or 5 times a power of ten."""
    rough = span / count
    power = 10.0 ** math.floor(math.log10(rough))
    return next((factor * power for factor in (1.0, 2.0, 5.0) if factor * power >= rough * 0.999), 10.0 * power)


def _frame(x_axis: _Axis, y_axis: _Axis, x_label: str, y_label: str, percent: bool) -> Markup:
    body = _y_grid(y_axis, y_label, percent)
    for tick in x_axis.ticks(5, whole=True):
        body += Markup('<text class="tick" x="{:.1f}" y="{:.1f}" text-anchor="middle">{:,.0f}</text>').format(
            x_axis.at(tick), HEIGHT - BOTTOM + 14.0, tick
        )
    return body + _x_label(x_label, HEIGHT)


def _y_grid(y_axis: _Axis, y_label: str, percent: bool) -> Markup:
    body = Markup("")
    for tick in y_axis.ticks(4):
        y = y_axis.at(tick)
        body += Markup('<line class="grid" x1="{}" x2="{}" y1="{:.1f}" y2="{:.1f}"/>').format(LEFT, WIDTH - RIGHT, y, y)
        body += Markup('<text class="tick" x="{}" y="{:.1f}" text-anchor="end">{}</text>').format(
            LEFT - 5.0, y + 3.5, percent_tick(tick) if percent else number_text(tick)
        )
    middle = (TOP + HEIGHT - BOTTOM) / 2.0
    return body + Markup(
        '<text class="label" x="11" y="{0:.1f}" text-anchor="middle" transform="rotate(-90 11 {0:.1f})">{1}</text>'
    ).format(middle, y_label)


def _x_label(label: str, height: float) -> Markup:
    return Markup('<text class="label" x="{:.1f}" y="{:.1f}" text-anchor="middle">{}</text>').format(
        (LEFT + WIDTH - RIGHT) / 2.0, height - 6.0, label
    )


def _boundaries(boundaries: Sequence[Boundary], x_axis: _Axis) -> Markup:
    body = Markup("")
    places = [x_axis.at(boundary.at) for boundary in boundaries]
    free = LEFT
    for index, (boundary, x) in enumerate(zip(boundaries, places, strict=True)):
        if index:
            body += Markup('<line class="stage" x1="{0:.1f}" x2="{0:.1f}" y1="{1}" y2="{2}"/>').format(
                x, TOP - 8.0, HEIGHT - BOTTOM
            )
        # A name that would run into the one before it is left out; the line stays.
        if x + 3.0 >= free:
            body += Markup('<text class="note" x="{:.1f}" y="{}">{}</text>').format(x + 3.0, TOP - 7.0, boundary.name)
            free = x + 3.0 + 6.5 * len(boundary.name) + 4.0
    return body


def _path(points: Sequence[Point], x_axis: _Axis, y_axis: _Axis, css: str, dots: bool = False) -> Markup:
    line = " ".join(f"{x_axis.at(x):.1f},{y_axis.at(y):.1f}" for x, y in points)
    body = Markup('<polyline class="{}" points="{}"/>').format(css, line)
    if dots:
        for x, y in points:
            body += Markup('<circle class="s1 dot" cx="{:.1f}" cy="{:.1f}" r="2.5"><title>{}</title></circle>').format(
                x_axis.at(x), y_axis.at(y), f"step {x:g}: {number_text(y)}"
            )
    return body


def _svg(title: str, description: str, body: Markup, height: float = HEIGHT) -> Markup:
    return Markup(
        '<svg viewBox="0 0 {:.0f} {:.0f}" role="img" aria-label="{}"><title>{}</title><desc>{}</desc>{}</svg>'
    ).format(WIDTH, height, f"{title}. {description}", title, escape(description), body)
