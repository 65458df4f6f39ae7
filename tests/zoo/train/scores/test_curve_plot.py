"""Plots: what is drawn where, what is left out, and how a browser lays it out."""

from __future__ import annotations

import html
import json
import math
import re
import shutil
import subprocess
from pathlib import Path
from xml.etree import ElementTree

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dlzoo.zoo.train.scores.curve_plot import Curve, curve_plot

CHROMIUM = next(
    (path for name in ("chromium", "chromium-browser", "google-chrome") if (path := shutil.which(name))),
    None,
)  # fmt: skip
SVG = "{http://www.w3.org/2000/svg}"
HEIGHT = 260.0


def plot(*curves: Curve, is_log_y: bool = False) -> str:
    return curve_plot(
        curves, title="Loss", x_label="epoch", y_label="cross-entropy", is_log_y=is_log_y
    )


def texts(document: str) -> list[str]:
    return [e.text or "" for e in ElementTree.fromstring(document).iter(f"{SVG}text")]


def segments(document: str) -> list[list[list[tuple[float, float]]]]:
    """Of each curve, the last one first, its runs of points in shares: x of the width, y up."""
    found = []
    for path in ElementTree.fromstring(document).iter(f"{SVG}path"):
        runs = []
        for run in path.attrib["d"].split("M")[1:]:
            pairs = [step.split() for step in run.split("L")]
            runs.append([(float(x) / 1000, 1 - float(y) / HEIGHT) for x, y in pairs])
        found.append(runs)
    return found


def y_ticks(document: str) -> list[tuple[str, float]]:
    """Labels of the y axis and their places, in shares upwards."""
    root = ElementTree.fromstring(document)
    top = next(float(e.attrib["y"]) for e in root.iter(f"{SVG}svg") if "width" in e.attrib and e is not root)  # fmt: skip
    marks = []
    for holder in root.findall(f"{SVG}svg"):
        text = holder.find(f"{SVG}text")
        if text is not None and text.attrib.get("text-anchor") == "end":
            marks.append(
                (text.text or "", 1 - (float(holder.attrib["y"]) - 4.5 - top) / HEIGHT)
            )
    return marks


def test_points_lie_where_the_axes_say() -> None:
    document = plot(Curve("training", [(0, 1.0), (5, 3.0), (10, 2.0)]))
    assert texts(document)[:4] == ["Loss", "training", "cross-entropy", "1.0"]
    (((start, middle, end),),) = segments(document)
    assert [start[0], middle[0], end[0]] == [0.0, 0.5, 1.0]
    ticks = y_ticks(document)
    assert [label for label, _ in ticks] == ["1.0", "1.5", "2.0", "2.5", "3.0"]
    for label, place in ticks:
        # Between the outer ticks places are linear.
        share = (float(label) - 1) / 2
        expected = start[1] + share * (middle[1] - start[1])
        assert place == pytest.approx(expected, abs=1e-3)
    assert end[1] == pytest.approx((start[1] + middle[1]) / 2, abs=1e-3)


def test_logarithmic_axis() -> None:
    document = plot(Curve("rate", [(0, 1e-4), (1, 1e-2), (2, 1.0)]), is_log_y=True)
    (((low, middle, high),),) = segments(document)
    assert [low[1], middle[1], high[1]] == pytest.approx([0.0, 0.5, 1.0], abs=1e-3)
    assert y_ticks(document) == [
        (label, pytest.approx(place, abs=1e-3))
        for label, place in (
            ("1e-4", 0),
            ("0.001", 0.25),
            ("0.01", 0.5),
            ("0.1", 0.75),
            ("1", 1),
        )
    ]
    narrow = plot(Curve("rate", [(0, 0.3), (1, 4.0)]), is_log_y=True)
    assert [label for label, _ in y_ticks(narrow)] == ["0.2", "0.5", "1", "2", "5"]
    wide = plot(Curve("rate", [(0, 1e-20), (1, 1.0)]), is_log_y=True)
    assert [label for label, _ in y_ticks(wide)] == [
        "1e-20",
        "1e-16",
        "1e-12",
        "1e-8",
        "1e-4",
        "1",
    ]


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
def test_what_is_not_finite_is_a_gap(bad: float) -> None:
    values = [1.0, 2.0, bad, 3.0, bad, bad, 4.0, 5.0, bad]
    document = plot(Curve("loss", list(enumerate(values))))
    ((first, second),) = segments(document)
    assert [len(first), len(second)] == [2, 2]
    assert document.count("<circle") == 1  # the 3.0 by itself
    assert "nan" not in document and "inf" not in document.replace("finite", "")


def test_logarithmic_axis_leaves_out_what_is_not_positive() -> None:
    points = [(0, 0.1), (1, 0.2), (2, 0.0), (3, -1.0), (4, 0.3), (5, 0.2)]
    ((first, second),) = segments(plot(Curve("rate", points), is_log_y=True))
    assert [len(first), len(second)] == [2, 2]


def test_nothing_finite_says_so() -> None:
    for curves in ((), (Curve("loss", [(1, math.nan)]),), (Curve("loss", []),)):
        assert "no finite values" in texts(plot(*curves))
        assert "no finite values" in texts(plot(*curves, is_log_y=True))


def test_epochs_are_whole() -> None:
    document = plot(Curve("loss", [(1, 1.0), (2, 2.0), (3, 2.5)]))
    labels = texts(document)
    assert labels[labels.index("epoch") - 3 : labels.index("epoch")] == ["1", "2", "3"]


def test_thousands_of_points_are_thinned_and_no_peak_is_lost() -> None:
    values = [math.sin(i / 500) for i in range(20_000)]
    values[7_777], values[13_131] = 9.0, -9.0
    document = plot(Curve("loss", list(enumerate(values))))
    ((run,),) = segments(document)
    assert 500 < len(run) <= 1002
    assert len(document) < 40_000
    heights = [y for _, y in run]
    low, high = (heights.index(f(heights)) for f in (min, max))
    assert run[high][0] == pytest.approx(7_777 / 19_999, abs=1e-4)
    assert run[low][0] == pytest.approx(13_131 / 19_999, abs=1e-4)
    assert [x for x, _ in run] == sorted(x for x, _ in run)
    assert run[0][0] == 0.0 and run[-1][0] == 1.0


def test_text_is_escaped_and_curves_differ_in_more_than_colour() -> None:
    names = ["<a> & b", "c", "d", "e"]
    document = plot(*(Curve(name, [(0, i), (1, i + 1)]) for i, name in enumerate(names)))
    assert texts(document)[1:5] == names
    paths = list(ElementTree.fromstring(document).iter(f"{SVG}path"))
    looks = {(p.attrib["stroke"], p.attrib.get("stroke-dasharray")) for p in paths}
    # Else the stretching would make lines of other widths.
    assert all(p.attrib["vector-effect"] == "non-scaling-stroke" for p in paths)
    assert len(looks) == len({dashes for _, dashes in looks}) == 4
    assert ElementTree.fromstring(document).findtext(f"{SVG}title") == (
        "Loss: cross-entropy over epoch"
    )


FLOATS = st.floats(allow_nan=True, allow_infinity=True)


@settings(max_examples=150, deadline=None)
@given(
    points=st.lists(st.tuples(st.floats(0, 1e6), FLOATS), max_size=6), is_log_y=st.booleans()
)
def test_any_numbers_give_a_sound_plot(
    points: list[tuple[float, float]], is_log_y: bool
) -> None:
    document = plot(Curve("any", points), is_log_y=is_log_y)
    ticks = y_ticks(document)
    assert len(ticks) <= 12
    assert all(-1e-3 <= place <= 1 + 1e-3 for _, place in ticks)
    labels = [label for label, _ in ticks]
    assert len(set(labels)) == len(labels)
    assert [float(label) for label in labels] == sorted(float(label) for label in labels)
    for runs in segments(document):
        for run in runs:
            assert all(-1e-3 <= x <= 1.001 and -1e-3 <= y <= 1.001 for x, y in run)


# -- in a browser ----------------------------------------------------------------------------------

MEASURE = """
const overlap = (a, b) => Math.min(a.right, b.right) - Math.max(a.left, b.left) > 1
  && Math.min(a.bottom, b.bottom) - Math.max(a.top, b.top) > 2;
window.onload = () => {
  const found = [...document.querySelectorAll("iframe")].map(frame => {
    const page = frame.contentDocument, overlaps = [], cut = [], sizes = [];
    for (const plot of page.querySelectorAll("svg.curves")) {
      const around = plot.getBoundingClientRect();
      const boxes = [...plot.querySelectorAll("text")]
        .map(t => [t.textContent, t.getBoundingClientRect(), t]);
      boxes.forEach(([name, box, element], i) => {
        sizes.push(box.height);
        if (box.left < around.left - 1 || box.right > around.right + 1
            || box.bottom > around.bottom + 1) cut.push(name);
        boxes.slice(i + 1).forEach(([other, place]) => {
          if (overlap(box, place)) overlaps.push([name, other]);
        });
      });
      for (const path of plot.querySelectorAll("path")) {
        const b = path.getBoundingClientRect();
        if (b.left < around.left || b.right > around.right) cut.push("a curve");
      }
    }
    const plot = page.querySelector("svg.curves");
    return {overlaps, cut, least: Math.min(...sizes), width: plot.getBoundingClientRect().width,
      scroll: page.documentElement.scrollWidth - frame.clientWidth,
      ground: page.defaultView.getComputedStyle(plot).backgroundColor};
  });
  document.body.textContent = JSON.stringify(found);
};
"""
PLOTS = (
    plot(
        Curve("training", [(e, 2.0 / e) for e in range(1, 31)]),
        Curve("validation", [(e, 2.2 / e) for e in range(1, 31)]),
    ),
    plot(Curve("learning rate", [(e, 10.0**-e) for e in range(91)]), is_log_y=True),
    plot(*(Curve(f"curve {i}", [(e, i * e * 1e-7) for e in range(4)]) for i in range(7))),
    plot(Curve("a long name that takes a row of its own", [(0, -12345.0), (1, 54321.0)])),
    plot(Curve("one point", [(1, 0.5)])),
)


@pytest.mark.skipif(CHROMIUM is None, reason="Chromium is not installed")
@pytest.mark.parametrize("is_dark", [False, True])
def test_layout_at_a_phones_and_a_desktops_width(tmp_path: Path, is_dark: bool) -> None:
    (tmp_path / "plots.html").write_text(
        '<!doctype html><meta charset="utf-8"><style>:root { color-scheme: light dark }'
        f"body {{ margin: 8px }}</style>{''.join(PLOTS)}"
    )
    frames = "".join(
        f'<iframe src="plots.html" style="width: {width}px; height: 3000px; border: 0"></iframe>'
        for width in (390, 1280)
    )
    page = tmp_path / "frames.html"
    page.write_text(
        "<!doctype html><style>:root { color-scheme: light dark }</style>"
        f"<script>{MEASURE}</script><body>{frames}"
    )
    scheme = ["--blink-settings=preferredColorScheme=0"] if is_dark else []
    done = subprocess.run(
        [
            *(str(CHROMIUM), "--headless", "--no-sandbox", "--disable-gpu", *scheme),
            *("--allow-file-access-from-files", f"--user-data-dir={tmp_path / 'profile'}"),
            *("--virtual-time-budget=5000", "--dump-dom", page.as_uri()),
        ],
        capture_output=True,
        text=True,
        timeout=120,
    )
    body = re.search(r"<body>(\[.*\])</body>", done.stdout, re.DOTALL)
    assert body, done.stderr[-2000:]
    phone, desktop = json.loads(html.unescape(body[1]))
    for frame in (phone, desktop):
        assert frame["overlaps"] == [] and frame["cut"] == [] and frame["scroll"] <= 0
        assert frame["least"] >= 12  # pixels: text is not shrunk
        assert frame["ground"] == ("rgb(20, 23, 26)" if is_dark else "rgb(255, 255, 255)")
    assert 340 <= phone["width"] <= 390 and desktop["width"] == 860
