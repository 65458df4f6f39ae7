"""report.html in a browser: nothing is cut, nothing overlaps, and dark is dark.

A page of its own shows the report in frames of a phone's and a desktop's width, and writes down
what the browser laid out.
"""

import json
import re
import shutil
import subprocess
from dataclasses import replace
from html import escape
from pathlib import Path
from typing import Any

import pytest

from dlzoo.runtime.bundle.bundle import Bundle
from dlzoo.runtime.pages.report_page import report_page
from tests.support.report_facts import candidate, layer, layer_errors, report

CHROMIUM = next(
    (path for name in ("chromium", "chromium-browser", "google-chrome") if (path := shutil.which(name))),
    None,
)  # fmt: skip
pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="Chromium is not installed")
WIDTHS = (390, 1280)

MEASURE = """
const overlap = (a, b) => Math.min(a.right, b.right) - Math.max(a.left, b.left) > 1
  && Math.min(a.bottom, b.bottom) - Math.max(a.top, b.top) > 2;
window.onload = () => {
  const found = [...document.querySelectorAll("iframe")].map(frame => {
    frame.contentDocument.querySelectorAll("details").forEach(d => d.open = true);
    const page = frame.contentDocument, width = frame.clientWidth;
    const boxes = [...page.querySelectorAll(".plot text")]
      .map(t => [t.textContent, t.getBoundingClientRect()]);
    const overlaps = [];
    boxes.forEach(([name, box], i) => boxes.slice(i + 1).forEach(([other, place]) => {
      if (overlap(box, place)) overlaps.push([name, other]);
    }));
    const cut = [...page.querySelectorAll("h1, h2, p, li, dd, th, td, summary, .plot text")]
      .filter(e => {
        const b = e.getBoundingClientRect();
        return b.width && (b.left < -1 || b.right > width + 1) && !e.closest(".scroll");
      }).map(e => e.textContent);
    const tables = [...page.querySelectorAll(".scroll")]
      .filter(e => !e.querySelector(".long")).map(e => e.scrollWidth - e.clientWidth);
    const tall = [...page.querySelectorAll("tbody td, tbody th")]
      .filter(e => e.getBoundingClientRect().height > 240).map(e => e.textContent);
    const style = page.defaultView.getComputedStyle(page.body);
    return {width, page: page.documentElement.scrollWidth, overlaps, cut, tables, tall,
      ground: style.backgroundColor, dots: page.querySelectorAll(".plot .area title").length};
  });
  document.body.textContent = JSON.stringify(found);
};
"""
PAGES = {
    "clean": report(),
    "all alike": report(layers=layer_errors(*([1.0] * 120))),
    "one layer": report(layers=layer_errors(1.0)),
    "a fault": report(
        verdict="fail",
        candidates=(candidate(verdict="fail", rho2=812.0, reasons=("has rho2 812",)),),
        layers=layer_errors(*([1.0, 0.6, 1.4] * 15), *([300.0, 90.0, 120.0, 260.0] * 8), None),
    ),
    "a long name": report(
        candidates=(candidate(kind="one_kind_of_inputs_without_any_space_" * 3),),
        layers=replace(
            layer_errors(),
            values=tuple(
                layer(
                    i,
                    2.0 if i == 16 else 0.9,
                    module=f"network.stages.{i}.attention.projection.linear",
                )
                for i in range(31)
            ),
        ),
        notes=("a_name_without_any_space_" * 8,),
    ),
}


def layouts(html: str, folder: Path, *, dark: bool) -> list[dict[str, Any]]:
    frames = "".join(
        f'<iframe width="{width}" height="900" style="border:0" srcdoc="{escape(html)}"></iframe>'
        for width in WIDTHS
    )
    outer = folder / "outer.html"
    outer.write_text(
        f"<!doctype html><meta charset=utf-8><body>{frames}<script>{MEASURE}</script>",
        encoding="utf-8",
    )
    assert CHROMIUM is not None
    done = subprocess.run(
        [
            *(CHROMIUM, "--headless=new", "--no-sandbox", "--disable-gpu", "--dump-dom"),
            *(f"--user-data-dir={folder / 'profile'}", "--window-size=1400,1000"),
            f"--blink-settings=preferredColorScheme={0 if dark else 1}",
            outer.as_uri(),
        ],
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 0, done.stderr
    found = re.search(r"<body>(\[.*\])</body>", done.stdout, re.DOTALL)
    assert found, done.stdout[-500:]
    measured: list[dict[str, Any]] = json.loads(found[1])
    assert [layout["width"] for layout in measured] == list(WIDTHS)
    return measured


@pytest.mark.parametrize("name", PAGES)
def test_nothing_is_cut_or_overlaps_on_phone_and_desktop(
    clean_bundle: Bundle, tmp_path: Path, name: str
) -> None:
    parity = json.loads(json.dumps(PAGES[name].to_parity()))
    html = report_page(clean_bundle.manifest, parity, {"export": 6.0, "verify": 1.0})
    for layout in layouts(html, tmp_path, dark=False):
        assert layout["page"] <= layout["width"], layout
        assert layout["overlaps"] == [], layout
        assert layout["cut"] == [], layout
        assert max(layout["tables"]) <= 1, layout
        assert layout["tall"] == [], layout  # a column that is squeezed to nothing
        assert layout["dots"] == len(parity["layers"]["values"])


def test_light_and_dark_follow_the_reader(clean_bundle: Bundle, tmp_path: Path) -> None:
    html = report_page(clean_bundle.manifest, json.loads(json.dumps(report().to_parity())))
    for dark, ground in ((False, "rgb(255, 255, 255)"), (True, "rgb(20, 23, 26)")):
        for layout in layouts(html, tmp_path, dark=dark):
            assert layout["ground"] == ground
