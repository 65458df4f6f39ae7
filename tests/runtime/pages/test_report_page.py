"""report.html as a page: well-formed, alone in the world, and fit to be read by everybody."""

import re
from collections import Counter
from dataclasses import replace

from dlzoo.runtime.bundle.manifest import Manifest
from dlzoo.runtime.pages.report_page import report_page
from dlzoo.runtime.pages.style import STYLE
from dlzoo.runtime.proof.difference import WorstElement
from tests.support.report_facts import candidate, layer, layer_errors
from tests.support.report_reader import SECONDS, Reader, parity, read, section

HOSTILE = "<script>alert(1)</script>\"'&amp;"


def test_the_sections_come_in_order_and_the_contents_lead_to_them(manifest: Manifest) -> None:
    root = read(manifest, parity())
    ids = [found.attributes["id"] for found in root.all("section")]
    assert ids == [
        *("proof", "layers", "elements", "power", "axes", "lowering", "timings", "origin")
    ]
    (nav,) = root.all("nav")
    assert [a.attributes["href"] for a in nav.all("a")] == [f"#{key}" for key in ids]
    all_ids = re.findall(r' id="([^"]*)"', report_page(manifest, parity()))
    assert max(Counter(all_ids).values()) == 1


def test_the_page_needs_nothing_but_itself(manifest: Manifest) -> None:
    paper = {
        "authors": "A",
        "title": "T",
        "year": 1998,
        "url": "https://example.org/p?a=1&b=2",
    }
    html = report_page(replace(manifest, card={"paper": paper}), parity(), SECONDS)
    root = Reader(html).root
    for tag in ("script", "link", "img", "iframe", "object", "base", "form"):
        assert not list(root.all(tag)), tag
    assert not re.search(r"url\(|@import|javascript:| src=| on[a-z]+=", html)
    links = [a.attributes["href"] for a in root.all("a")]
    assert [href for href in links if not href.startswith("#")] == [
        "https://example.org/p?a=1&b=2"
    ]


def test_the_same_facts_give_the_same_bytes(manifest: Manifest) -> None:
    first, second = (report_page(manifest, parity(), SECONDS) for _ in range(2))
    assert first == second
    assert "Timings" not in report_page(manifest, parity())


def test_names_are_escaped_wherever_they_come_from(manifest: Manifest) -> None:
    worst = {HOSTILE: WorstElement(index=(0,), reference=1.0, got=2.0)}
    wrong = layer(0, 9.0, module=HOSTILE, node=HOSTILE, op_type=HOSTILE, source=HOSTILE)
    document = parity(
        verdict="fail",
        candidates=(candidate(kind=HOSTILE, verdict="fail", reasons=(HOSTILE,), worst=worst),),
        notes=(HOSTILE,),
        layers=replace(layer_errors(), values=(wrong,), kind=HOSTILE),
    )
    document["power"]["missed"] = [HOSTILE]
    row = {"layer": HOSTILE, "spelling": HOSTILE, "onnx": [HOSTILE], "count": 1}
    hostile = replace(
        manifest,
        name=HOSTILE,
        limit_reason=HOSTILE,
        tools={HOSTILE: HOSTILE},
        card={
            "summary": HOSTILE,
            "paper": {
                "authors": "",
                "title": HOSTILE,
                "year": 1,
                "url": "javascript:alert(1)",
            },
        },
        lowering=({**row, "modules": [HOSTILE], "reason": HOSTILE},),
    )
    html = report_page(hostile, document, {HOSTILE: 1.0})
    root = Reader(html).root
    assert not list(root.all("script")) and "javascript:" not in html
    (heading,) = root.all("h1")
    assert heading.text == HOSTILE
    assert (
        HOSTILE in section(root, "layers").text and HOSTILE in section(root, "lowering").text
    )
    titles = [title.text for title in section(root, "layers").all("title")]
    assert HOSTILE in titles[0]


def test_every_table_has_heads_for_columns_and_rows_and_takes_the_focus(
    manifest: Manifest,
) -> None:
    root = read(manifest, parity())
    tables = list(root.all("table"))
    assert len(tables) == 7
    for table in tables:
        heads = [th.text for th in table.all("th") if th.attributes["scope"] == "col"]
        for row in list(table.all("tr"))[1:]:
            cells = list(row.all("td"))
            assert len(list(row.all("th"))) == 1 and len(cells) == len(heads) - 1
            assert [cell.attributes["data-label"] for cell in cells] == heads[1:]
            # They stand beside their cells on a phone, in 8.5 rem.
            assert all(len(head) <= 16 for head in heads[1:])
    frames = [d for d in root.all("div") if d.attributes.get("class") == "scroll"]
    assert len(frames) == 7
    assert all(f.attributes["tabindex"] == "0" and f.attributes["aria-label"] for f in frames)


def test_landmarks_and_language(manifest: Manifest) -> None:
    root = read(manifest, parity())
    for tag in ("header", "nav", "main", "footer", "h1"):
        assert len(list(root.all(tag))) == 1, tag
    (html,) = root.all("html")
    assert html.attributes["lang"] == "en"


def luminance(colour: str) -> float:
    """Source: WCAG 2.2, relative luminance."""
    parts = [int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)]
    red, green, blue = (
        c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in parts
    )
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue


def test_text_has_contrast_in_light_and_dark() -> None:
    light, dark = (
        dict(re.findall(r"--(\w+): (#\w{6})", block)) for block in STYLE.split("@media")[:2]
    )
    for colours in (light, dark):
        assert len(colours) == 9 - ("raised" not in colours)
        ground = luminance(colours["ground"])
        for name in ("ink", "muted", "mark", "good", "bad", "warn"):
            high, low = sorted((ground, luminance(colours[name])), reverse=True)
            assert (high + 0.05) / (low + 0.05) >= 4.5, (name, colours[name])
