"""Charts as SVG: small, sharp at every size, in the colors of the page around them."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from keras_deit.training.report_markup import Markup, tag

WIDTH, HEIGHT = 400, 250  # of a chart, in its own units; letters are 12 or 14 high
LEFT, RIGHT, TOP, BOTTOM = 56, 8, 8, 42  # what is kept free of lines
COLORS, DASHES = 6, 5  # no two of the first 30 lines are alike
FEWEST_WITHOUT_DOTS = 25
BINS = 10


@dataclass(frozen=True)
class Line:
    """One line of a chart.

    Attributes:
        name: What the legend calls it.
        x: Where its points are, rising.
        y: How high they are.
    """

    name: str
    x: Sequence[float]
    y: Sequence[float]

    @property
    def points(self) -> list[tuple[float, float]]:
        """The points that can be drawn: those that are finite."""
        points = zip(self.x, self.y, strict=True)
        return [(x, y) for x, y in points if math.isfinite(x) and math.isfinite(y)]


def short(value: float) -> str:
    """Writes a number in four digits, for instance "0.0123" or "1.2e-05"."""
    return f"{value:.4g}"


def share(value: float) -> str:
    """Writes a share in [0, 1] in few digits, for instance "97.5 %"."""
    return f"{100 * value:.4g} %"


def ticks(low: float, high: float, count: int = 5) -> list[float]:
    """Chooses round numbers, about `count`, from at most `low` to at least `high`.

    Example:
    >>> ticks(0.3, 2.1)
    [0.0, 0.5, 1.0, 1.5, 2.0, 2.5]
    """
    if low == high:  # one value, somewhere in the middle
        margin = abs(low) / 2 or 1.0
        low, high = low - margin, high + margin
    power = 10.0 ** math.floor(math.log10((high - low) / count))
    step = next(
        power * factor
        for factor in (1, 2, 5, 10)
        if power * factor * count >= (high - low) * (1 - 1e-9)
    )
    first, last = math.floor(low / step + 1e-9), math.ceil(high / step - 1e-9)
    # A product of whole numbers, so that 0.3 is not 0.30000000000000004.
    digits = max(0, -math.floor(math.log10(step)))
    return [round(index * step, digits) for index in range(first, last + 1)]


def line_chart(
    title: str,
    lines: Sequence[Line],
    shares: bool = False,
    note: str | None = None,
) -> Markup:
    """Draws lines over the epochs, with a legend that says where each one ends.

    Args:
        title: What is drawn.
        lines: The lines; those without a finite point are in the legend alone.
        shares: Whether the heights are shares in [0, 1], to be written in percent.
        note: What one has to know to read it.
    """
    written = share if shares else short
    drawn = [(i, line.points) for i, line in enumerate(lines) if line.points]
    names = [
        tag("li", _swatch(i), tag("span", f"{line.name} ", _last(line, written)))
        for i, line in enumerate(lines)
    ]
    parts = [tag("h3", title), tag("ul", *names, class_="legend")]
    if drawn:
        description = _described(title, lines, written)
        parts.append(_svg(description, _drawing(drawn, shares, written)))
    if note is not None:
        parts.append(tag("figcaption", note))
    return tag("figure", *parts)


def _last(line: Line, written: Callable[[float], str]) -> Markup:
    return tag("b", written(line.points[-1][1]) if line.points else "no numbers")


def _drawing(drawn, shares: bool, written) -> list[Markup]:
    xs = [x for _, points in drawn for x, _ in points]
    ys = [y for _, points in drawn for _, y in points]
    x_ticks = [x for x in ticks(min(xs), max(xs)) if x == int(x)]
    y_ticks = ticks(min(ys), max(ys))
    if shares:  # there is nothing beyond 0 and 1
        y_ticks = [y for y in y_ticks if 0 <= y <= 1]
    # A chart of one epoch has one point, in the middle.
    across = _scale(min(xs), max(xs), LEFT + 6, WIDTH - RIGHT - 6)
    up = _scale(y_ticks[0], y_ticks[-1], HEIGHT - BOTTOM, TOP)
    parts = [
        part
        for y in y_ticks
        for part in (
            _rule(LEFT, up(y), WIDTH - RIGHT, up(y)),
            _text(LEFT - 6, up(y) + 4, written(y), "end"),
        )
    ]
    parts += [
        _text(across(x), HEIGHT - BOTTOM + 17, f"{x:g}", "middle")
        for x in x_ticks
        if min(xs) <= x <= max(xs)
    ]
    parts.append(_text((LEFT + WIDTH - RIGHT) / 2, HEIGHT - 5, "epoch", "middle"))
    for index, points in drawn:
        at = [(_place(across(x)), _place(up(y))) for x, y in points]
        parts.append(_line(index, at))
        if len(at) <= FEWEST_WITHOUT_DOTS:
            parts += [
                tag("circle", cx=x, cy=y, r="2.5", class_=f"dot s{index % COLORS}")
                for x, y in at
            ]
    return parts


def _described(title: str, lines: Sequence[Line], written) -> str:
    """The chart in words, for those who do not see it."""
    told = []
    for line in lines:
        if line.points:
            (first, start), (last, end) = line.points[0], line.points[-1]
            told.append(
                f"{line.name} from {written(start)} at epoch {first:g} "
                f"to {written(end)} at epoch {last:g}"
            )
    return f"{title}: {'; '.join(told)}."


def histogram(title: str, shares: Sequence[float], note: str) -> Markup:
    """Draws how many of some shares in [0, 1] lie in each tenth.

    Args:
        title: What is drawn.
        shares: The shares; 1 is in the last tenth.
        note: What one has to know to read it.
    """
    counts = [0] * BINS
    for share in shares:
        counts[min(int(share * BINS), BINS - 1)] += 1
    across = _scale(0, BINS, LEFT / 2, WIDTH - LEFT / 2)
    up = _scale(0, max(counts), HEIGHT - BOTTOM, TOP + 16)
    parts = [_rule(across(0), up(0), across(BINS), up(0))]
    for index, count in enumerate(counts):
        middle = across(index + 0.5)
        column = {"x": _place(across(index) + 2), "y": _place(up(count))}
        column["width"] = _place(across(1) - across(0) - 4)
        column["height"] = _place(up(0) - up(count))
        parts.append(tag("rect", **column, class_="column s0"))
        if count:
            parts.append(_text(middle, up(count) - 5, f"{count:,}", "middle"))
    parts += [
        _text(across(index), up(0) + 17, f"{100 * index // BINS} %", "middle")
        for index in range(0, BINS + 1, 2)
    ]
    parts.append(_text(across(BINS / 2), HEIGHT - 5, "top-1 accuracy", "middle"))
    told = [
        f"{100 * i // BINS} % to {100 * (i + 1) // BINS} %: {c}"
        for i, c in enumerate(counts)
        if c
    ]
    return tag(
        "figure",
        tag("h3", title),
        _svg(f"{title}: {'; '.join(told)}.", parts),
        tag("figcaption", note),
        class_="half",
    )


def _scale(low: float, high: float, start: float, end: float):
    """A straight line from [low, high] to [start, end]; one value is the middle."""
    if low == high:
        return lambda value: (start + end) / 2
    return lambda value: start + (value - low) / (high - low) * (end - start)


def _place(value: float) -> str:
    return f"{value:.1f}"


def _svg(description: str, parts: Sequence[Markup]) -> Markup:
    box = {"viewBox": f"0 0 {WIDTH} {HEIGHT}", "class_": "chart"}
    return tag("svg", *parts, **box, role="img", aria_label=description)


def _swatch(index: int) -> Markup:
    """The beginning of a line, for the legend."""
    line = _line(index, [("0", "4"), ("28", "4")])
    return tag("svg", line, viewBox="0 0 28 8", aria_hidden="true")


def _line(index: int, places: Sequence[tuple[str, str]]) -> Markup:
    kind = f"line s{index % COLORS} d{index % DASHES}"
    return tag("polyline", points=" ".join(map(",".join, places)), class_=kind)


def _rule(x1: float, y1: float, x2: float, y2: float) -> Markup:
    ends = {"x1": _place(x1), "y1": _place(y1), "x2": _place(x2), "y2": _place(y2)}
    return tag("line", **ends, class_="grid")


def _text(x: float, y: float, text: str, anchor: str) -> Markup:
    return tag("text", text, x=_place(x), y=_place(y), text_anchor=anchor)
