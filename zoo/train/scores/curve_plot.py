"""Line plots as SVG: learning rates, losses and accuracies over the epochs.

A plot fills any width while its text keeps its size, as phones need: positions along x are
shares of the width, and lines are stretched. It follows the reader's choice of light or dark,
needs no script and no network, and works alone or inside a page.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from html import escape

from dlzoo.zoo.train.scores.plot_axis import LARGEST, Axis, linear_axis, log_axis

#: Pixels: height of the plotting area, space above and below it, and greatest width.
_HEIGHT, _BELOW, _TITLE, _LEGEND_ROW, _GAP, _MAX_WIDTH = 260, 44, 30, 20, 14, 860
#: Pixels: width of a phone, of a digit, and the space beside it.
_PHONE, _DIGIT, _BESIDE = 360, 7.5, 14
#: Space to the right of the plotting area, in percent of the width: half of the last label.
_RIGHT_PERCENT = 4.0
#: A legend entry with more characters than this has a row of its own.
_SHORT_NAME = 20
#: Curves with more points are thinned out: the extra points are invisible but slow to draw.
_MAX_POINTS = 1000
#: Width of the coordinate system of the stretched lines.
_WIDE = 1000
#: Coordinates are rounded to this: a hundredth of a pixel or less.
_DIGITS = 2

#: Colours with a contrast of 3 or more against the background; lines also differ in dashes.
_STYLE = """
.curves { color-scheme: light dark; --ground: #ffffff; --ink: #1b1f24; --muted: #57606a;
  --line: #d0d7de; --c0: #0b5cad; --c1: #b3261e; --c2: #116329; --c3: #7a4b00; --c4: #7b3fa0;
  --c5: #57606a; background: var(--ground); }
@media (prefers-color-scheme: dark) { .curves { --ground: #14171a; --ink: #e8eaed;
  --muted: #a9b1ba; --line: #3d444d; --c0: #79b8ff; --c1: #ff9b93; --c2: #6fd38b; --c3: #f0c060;
  --c4: #d2a8ff; --c5: #a9b1ba; } }
.curves text { font: 13px system-ui, -apple-system, "Segoe UI", sans-serif; fill: var(--muted); }
.curves .ground { fill: var(--ground); } .curves .grid { stroke: var(--line); }
.curves .title { font-size: 15px; font-weight: 600; fill: var(--ink); }
.curves .legend { fill: var(--ink); }
.curves .curve { fill: none; stroke-width: 2; stroke-linejoin: round; stroke-linecap: round; }
"""
_DASHES = ("", "7 5", "2 5", "12 4 2 4")
_NUM_COLORS = 6


@dataclass(frozen=True)
class Curve:
    """A line: its name in the legend, and its points from left to right.

    Values that are not finite or beyond 1e100, and on a log axis those not positive, leave gaps.
    """

    name: str
    points: Sequence[tuple[float, float]]


def curve_plot(
    curves: Sequence[Curve],
    *,
    title: str,
    x_label: str,
    y_label: str,
    is_log_y: bool = False,
) -> str:
    """Draw curves as an SVG document.

    Args:
        curves: the first one is drawn on top.
        title: text above the plot.
        x_label: text below the x axis.
        y_label: text above the y axis, so that it need not be rotated.
        is_log_y: logarithmic y axis.
    """
    lines = [_segments(curve.points, is_log_y) for curve in curves]
    finite = [point for segments in lines for segment in segments for point in segment]
    axis_x = linear_axis([x for x, _ in finite], is_padded=False)
    values = [y for _, y in finite]
    axis_y = log_axis(values) if is_log_y else linear_axis(values, is_padded=True)
    return _Drawing(curves, lines, axis_x, axis_y, title, x_label, y_label).document()


# -- data ------------------------------------------------------------------------------------------

_Segment = list[tuple[float, float]]


def _segments(points: Sequence[tuple[float, float]], is_log_y: bool) -> list[_Segment]:
    """Runs of consecutive points that can be drawn."""
    segments: list[_Segment] = [[]]
    for x, y in points:
        if abs(x) <= LARGEST and abs(y) <= LARGEST and (y >= 1 / LARGEST or not is_log_y):
            segments[-1].append((x, y))
        elif segments[-1]:
            segments.append([])
    num_points = sum(map(len, segments))
    stride = -(-num_points // (_MAX_POINTS // 2)) if num_points > _MAX_POINTS else 1
    return [_thinned(segment, stride) for segment in segments if segment]


def _thinned(segment: _Segment, stride: int) -> _Segment:
    """The lowest and the highest point of every ``stride`` points, so that no peak is lost."""
    if stride == 1:
        return segment
    kept: _Segment = [segment[0]]
    for start in range(1, len(segment), stride):
        part = segment[start : start + stride]
        extremes = {min(part, key=lambda p: p[1]), max(part, key=lambda p: p[1])}
        kept += sorted(extremes)
    if kept[-1] != segment[-1]:
        kept.append(segment[-1])
    return kept


# -- drawing ---------------------------------------------------------------------------------------


class _Drawing:
    def __init__(
        self,
        curves: Sequence[Curve],
        lines: Sequence[list[_Segment]],
        axis_x: Axis,
        axis_y: Axis,
        title: str,
        x_label: str,
        y_label: str,
    ) -> None:
        self.curves, self.lines = curves, lines
        self.axis_x, self.axis_y = axis_x, axis_y
        self.title, self.x_label, self.y_label = title, x_label, y_label
        is_short = all(len(curve.name) <= _SHORT_NAME for curve in curves)
        self.num_columns = 2 if is_short else 1
        num_rows = -(-len(curves) // self.num_columns)
        #: Top of the plotting area: below the title, the legend and the name of the y axis.
        self.top = _TITLE + num_rows * _LEGEND_ROW + _LEGEND_ROW + _GAP + _GAP // 2
        #: In percent of the width, as all positions along x: space for the labels on a phone.
        longest = max(map(len, axis_y.labels), default=0)
        self.left = round(100 * (longest * _DIGIT + _BESIDE) / _PHONE, _DIGITS)
        self.width = round(100 - self.left - _RIGHT_PERCENT, _DIGITS)

    def document(self) -> str:
        height = self.top + _HEIGHT + _BELOW
        sentence = f"{self.title}: {self.y_label} over {self.x_label}"
        return (
            '<svg xmlns="http://www.w3.org/2000/svg" class="curves" role="img" width="100%" '
            f'height="{height}" style="max-width: {_MAX_WIDTH}px">\n<title>{escape(sentence)}</title>\n<style>{_STYLE}</style>\n'
            f'<rect class="ground" width="100%" height="100%"/>\n'
            f'<text class="title" x="{_GAP}" y="22">{escape(self.title)}</text>\n'
            + "".join(self._legend())
            + f'<text x="{_GAP}" y="{self.top - _GAP - _GAP // 2}">{escape(self.y_label)}</text>\n'
            + "".join(self._y_labels())
            # A nested viewport, so that percentages refer to the plot's width.
            + f'<svg x="{self.left}%" y="{self.top}" width="{self.width}%" '
            f'height="{_HEIGHT + _BELOW}" overflow="visible">\n'
            + "".join([*self._grid(), *self._x_labels(), self._stretched_lines()])
            + "</svg>\n</svg>\n"
        )

    def _legend(self) -> list[str]:
        entries = []
        for i, curve in enumerate(self.curves):
            row, column = divmod(i, self.num_columns)
            y = _TITLE + row * _LEGEND_ROW + 14
            entries.append(
                f'<svg x="{50 * column}%" y="{y}" overflow="visible">'
                f'<line {_look(i)} x1="{_GAP}" x2="{_GAP + 28}" y1="-4" y2="-4"/>'
                f'<text class="legend" x="{_GAP + 36}">{escape(curve.name)}</text></svg>\n'
            )
        return entries

    def _y(self, value: float) -> float:
        return round((1 - self.axis_y.share(value)) * _HEIGHT, _DIGITS)

    def _y_labels(self) -> list[str]:
        axis = self.axis_y
        return [
            f'<svg x="{self.left}%" y="{self.top + self._y(tick) + 4.5:g}" overflow="visible">'
            f'<text x="-8" text-anchor="end">{label}</text></svg>\n'
            for tick, label in zip(axis.ticks, axis.labels, strict=True)
        ]

    def _grid(self) -> list[str]:
        edges = [0, _HEIGHT] if not self.axis_y.ticks else [_HEIGHT]
        heights = sorted({*edges, *(self._y(tick) for tick in self.axis_y.ticks)})
        return [f'<line class="grid" x2="100%" y1="{y:g}" y2="{y:g}"/>\n' for y in heights]

    def _x_labels(self) -> list[str]:
        axis = self.axis_x
        marks = []
        for tick, label in zip(axis.ticks, axis.labels, strict=True):
            x = round(100 * axis.share(tick), _DIGITS)
            marks.append(
                f'<line class="grid" x1="{x:g}%" x2="{x:g}%" y1="{_HEIGHT}" y2="{_HEIGHT + 5}"/>'
                f'<text x="{x:g}%" y="{_HEIGHT + 19}" text-anchor="middle">{label}</text>\n'
            )
        name = escape(self.x_label)
        marks.append(f'<text x="50%" y="{_HEIGHT + 37}" text-anchor="middle">{name}</text>\n')
        if not any(self.lines):
            marks.append(
                f'<text x="50%" y="{_HEIGHT // 2}" text-anchor="middle">no finite values</text>\n'
            )
        return marks

    def _stretched_lines(self) -> str:
        paths, dots = [], []
        for i, segments in enumerate(self.lines):
            if steps := "".join(
                self._path(segment) for segment in segments if len(segment) > 1
            ):
                paths.append(
                    f'<path {_look(i)} vector-effect="non-scaling-stroke" d="{steps}"/>\n'
                )
            # A single point would be a line of length zero.
            for x, y in (segment[0] for segment in segments if len(segment) == 1):
                share = round(100 * self.axis_x.share(x), _DIGITS)
                color = f"var(--c{i % _NUM_COLORS})"
                dots.append(
                    f'<circle cx="{share:g}%" cy="{self._y(y):g}" r="3" fill="{color}"/>\n'
                )
        return (
            f'<svg width="100%" height="{_HEIGHT}" viewBox="0 0 {_WIDE} {_HEIGHT}" '
            f'preserveAspectRatio="none" overflow="visible">\n{"".join(reversed(paths))}</svg>\n'
            + "".join(reversed(dots))
        )

    def _path(self, segment: _Segment) -> str:
        places = [
            (round(_WIDE * self.axis_x.share(x), _DIGITS), self._y(y)) for x, y in segment
        ]
        return "M" + "L".join(f"{x:g} {y:g}" for x, y in places)


def _look(index: int) -> str:
    """SVG attributes for the colour and dashes of a curve."""
    color, dashes = index % _NUM_COLORS, _DASHES[index % len(_DASHES)]
    dashed = f' stroke-dasharray="{dashes}"' if dashes else ""
    return f'class="curve" stroke="var(--c{color})"{dashed}'
