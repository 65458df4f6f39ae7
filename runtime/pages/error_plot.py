"""The plot of report.html: the error of every layer, in graph order, against the noise floor.

Positions along x are percentages of the width, so the plot fills any screen while its text keeps its
size.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from html import escape
from typing import Any

from dlzoo.runtime.pages.html_pieces import short_multiple

Layer = Mapping[str, Any]

#: Pixels: the lane above the plot for the worst layer's name, the plot, and the room below it.
_LANE, _HEIGHT, _BELOW = 26, 240, 8
#: The range of rho2 that is always shown, and the range beyond which points lie on the edge.
_SHOWN = (0.3, 10.0)
_LEAST, _MOST = 1e-3, 1e6
#: Lines of the grid.
_LADDER = tuple(float(f"{factor}e{n}") for n in range(-3, 7) for factor in (1, 3))
_NUM_WORST = 5
#: Marks nearer than this share of the width would overlap on a phone.
_CLOSE_PERCENT, _CLOSE_PIXELS = 4.5, 14.0
#: The width of a normal and of a bold character on a phone, in percent of the plot's.
_CHARACTER_PERCENT, _BOLD_PERCENT = 2.1, 2.7


def layer_plot(layers: Sequence[Layer], rho2_limit: float) -> str:
    """Draw rho2 of every layer on a logarithmic scale, with the worst layers numbered."""
    plot = _Plot(layers, rho2_limit)
    return (
        f'<figure><div class="plot" role="img" aria-label="{escape(plot_sentence(layers, rho2_limit))}">'
        f"{plot.axis()}{plot.area()}</div>\n"
        f'<div class="order muted"><span>first: <code>{escape(_name(layers[0]))}</code></span>'
        f"<span>last: <code>{escape(_name(layers[-1]))}</code></span></div>\n"
        "<figcaption>Each dot is the error of one layer's output, in the order of the graph, on a "
        "logarithmic scale; a dot on the lower edge is exact. Point at a dot to read its name."
        "</figcaption>"
        "</figure>\n"
    )


def plot_sentence(layers: Sequence[Layer], rho2_limit: float) -> str:
    """Describe the plot in one sentence, for screen readers."""
    beyond = [layer for layer in layers if layer["verdict"] != "pass"]
    (worst, *_) = worst_layers(layers)
    where = (
        "All of them pass"
        if not beyond
        else f"{len(beyond)} of them {'is' if len(beyond) == 1 else 'are'} beyond a limit"
    )
    return (
        f"Error of {len(layers)} layers in graph order, as a multiple of the error that PyTorch "
        f"itself makes in float32. {where} (up to {rho2_limit:g}); the worst is "
        f"{_name(worst)} ({worst['op_type']}) with {_rho_text(worst)}."
    )


def worst_layers(layers: Sequence[Layer]) -> list[Layer]:
    """Find the worst layers, the worst first; equal ones in graph order."""
    return sorted(layers, key=lambda layer: -_rank(layer))[:_NUM_WORST]


def _rank(layer: Layer) -> float:
    if layer["rho2"] is None:
        return math.inf if layer["verdict"] != "pass" else 0.0
    return float(layer["rho2"])


def _rho_text(layer: Layer) -> str:
    if layer["rho2"] is None:
        return "nothing finite to compare"
    return f"rho2 {short_multiple(layer['rho2'])}"


def _name(layer: Layer) -> str:
    return str(layer["module"] or layer["value"])


class _Plot:
    def __init__(self, layers: Sequence[Layer], rho2_limit: float) -> None:
        self.layers = layers
        self.limit = rho2_limit
        known = [layer["rho2"] for layer in layers if layer["rho2"]]
        lowest = max(_LEAST, min([*known, _SHOWN[0]]))
        highest = min(_MOST, max([*known, rho2_limit, _SHOWN[1]]))
        self.low = max(step for step in _LADDER if step <= lowest)
        self.high = min(step for step in _LADDER if step >= highest)
        self.grid = [step for step in _LADDER if self.low <= step <= self.high]
        #: The positions of marks: (x, y of the upper edge, y of the lower edge).
        self.taken: list[tuple[float, float, float]] = []

    def x(self, index: int) -> float:
        """The position of a layer, in percent of the width."""
        return round((index + 0.5) / len(self.layers) * 100, 2)

    def y(self, rho: float) -> float:
        """The position of a value of rho2, in pixels from the top."""
        inside = min(max(rho, self.low), self.high)
        share = math.log(self.high / inside) / math.log(self.high / self.low)
        return round(_LANE + share * _HEIGHT, 1)

    def y_of(self, layer: Layer) -> float:
        return self.y(_rank(layer))

    def axis(self) -> str:
        near = _CLOSE_PIXELS
        marks = [m for m in self.grid if abs(self.y(m) - self.y(self.limit)) > near]
        return (
            f'<svg class="axis" height="{_LANE + _HEIGHT + _BELOW}" aria-hidden="true">'
            '<text x="34" y="12" text-anchor="end">rho2</text>'
            + "".join(
                f'<text x="34" y="{self.y(mark) + 4:g}" text-anchor="end">{mark:g}</text>'
                for mark in [self.limit, *marks]
            )
            + "</svg>"
        )

    def area(self) -> str:
        lines = [self._line("grid", self.y(step)) for step in self.grid]
        lines += [self._line("floor", self.y(1.0)), self._line("limit", self.y(self.limit))]
        paths = [
            f'<line class="path" x1="{self.x(i)}%" y1="{self.y_of(a)}" x2="{self.x(i + 1)}%" '
            f'y2="{self.y_of(b)}"/>'
            for i, (a, b) in enumerate(zip(self.layers, self.layers[1:], strict=False))
        ]
        dots = [self._dot(i, layer) for i, layer in enumerate(self.layers)]
        worst = self._worst_marks()
        names = [
            self._line_name(self.limit, f"limit {self.limit:g}", "limit-name"),
            self._line_name(1.0, "noise floor of PyTorch"),
        ]
        return (
            f'<svg class="area" height="{_LANE + _HEIGHT + _BELOW}" width="100%" aria-hidden="true">\n'
            + "\n".join([*lines, *paths, *dots, *names, *worst])
            + "</svg>"
        )

    def _line(self, kind: str, y: float) -> str:
        return f'<line class="{kind}" x1="0" x2="100%" y1="{y}" y2="{y}"/>'

    def _line_name(self, rho: float, content: str, kind: str = "") -> str:
        """Write a line's name above it, where it covers the fewest marks, preferably at the right."""
        y = self.y(rho) - 6
        width = len(content) * _CHARACTER_PERCENT

        def in_the_way(place: tuple[float, str]) -> int:
            x, anchor = place
            left = x - {"end": width, "start": 0, "middle": width / 2}[anchor]
            return sum(
                left - 2 <= mark_x <= left + width + 2 and top < y + 4 and y - 12 < bottom
                for mark_x, top, bottom in self.taken
            )

        places = [(99.5, "end"), (0.5, "start")]
        places += [(float(percent), "middle") for percent in (50, 75, 25, 62, 38, 84, 16)]
        x, anchor = min(places, key=in_the_way)
        return self._text(x, y, content, kind, anchor)

    def _text(
        self, x: float, y: float, content: str, kind: str = "", anchor: str = "end"
    ) -> str:
        return (
            f'<text class="{" ".join(["halo", kind]).strip()}" x="{x}%" y="{y:g}" '
            f'text-anchor="{anchor}">{escape(content)}</text>'
        )

    def _dot(self, index: int, layer: Layer) -> str:
        x, y = self.x(index), self.y_of(layer)
        size = 4 if len(self.layers) <= 60 else 3 if len(self.layers) <= 200 else 2
        self.taken.append((x, y - size, y + size))
        title = f"{_name(layer)} ({layer['op_type']}): {_rho_text(layer)}"
        if layer["rhomax"] is not None:
            title += f", rhomax {short_multiple(layer['rhomax'])}"
        if layer["source"]:
            title += f", {layer['source']}"
        shown = f"<title>{escape(title)}</title>"
        if layer["verdict"] == "pass":
            return f'<circle class="layer" cx="{x}%" cy="{y}" r="{size}">{shown}</circle>'
        # A different shape, not only a different color.
        side = size + 3
        return (
            f'<svg x="{x}%" y="{y}" overflow="visible"><path class="beyond" '
            f'd="M0-{side}L{side} 0L0 {side}L-{side} 0Z">{shown}</path></svg>'
        )

    def _worst_marks(self) -> list[str]:
        """Mark the worst layers with numbered rings; the worst one has its name above the plot."""
        marks: list[str] = []
        placed: list[tuple[float, float]] = []
        for rank, layer in enumerate(worst_layers(self.layers)):
            index = next(i for i, other in enumerate(self.layers) if other is layer)
            x, y = self.x(index), self.y_of(layer)
            marks.append(f'<circle class="ring" cx="{x}%" cy="{y}" r="7"/>')
            if rank == 0:
                name = _name(layer)
                room = int(max(x, 100 - x) / _BOLD_PERCENT) - 2
                shown = name if len(name) <= room else f"…{name[1 - room :]}"
                anchor = "start" if x < 50 else "end"
                if y - 8 > _LANE:
                    self.taken.append((x, _LANE, y))
                    marks.append(
                        f'<line class="leader" x1="{x}%" x2="{x}%" y1="{_LANE - 8}" '
                        f'y2="{y - 8:g}"/>'
                    )
                marks.append(self._text(x, _LANE - 12, f"1 {shown}", "name", anchor))
                continue
            label_y = self._label_y(x, y - 12, placed, step=-_CLOSE_PIXELS)
            if label_y < _LANE + 12:  # no room above
                label_y = self._label_y(x, y + 20, placed, step=_CLOSE_PIXELS)
            placed.append((x, label_y))
            self.taken.append((x, label_y - 10, label_y + 2))
            marks.append(self._text(x, label_y, str(rank + 1), "name", "middle"))
        return marks

    def _label_y(
        self, x: float, y: float, placed: Sequence[tuple[float, float]], *, step: float
    ) -> float:
        """Find the first height, from ``y`` on in steps, at which no other label is too near."""
        while any(
            abs(x - other_x) < _CLOSE_PERCENT and abs(y - other_y) < abs(step)
            for other_x, other_y in placed
        ):
            y += step / 2
        return y
