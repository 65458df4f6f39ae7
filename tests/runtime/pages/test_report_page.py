"""report.html read back: well-formed, alone in the world, and true to parity.json."""

import json
import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from html.parser import HTMLParser
from typing import Any

import pytest
from report_facts import candidate, layer, layer_errors, report

from dlzoo.export.bundle import Bundle, Manifest
from dlzoo.runtime.difference import WorstElement
from dlzoo.runtime.layer_errors import LayerErrors
from dlzoo.runtime.pages.report_page import report_page
from dlzoo.runtime.pages.style import STYLE

VOID = {"meta", "br", "hr", "img", "input", "link"}
SECONDS = {"build": 0.5, "export": 6.25, "layers": 1.25}
HOSTILE = "<script>alert(1)</script>\"'&amp;"


@dataclass
class Element:
    tag: str
    attributes: dict[str, str]
    children: list["Element | str"] = field(default_factory=list)

    def all(self, tag: str) -> Iterator["Element"]:
        for child in self.children:
            if isinstance(child, Element):
                if child.tag == tag:
                    yield child
                yield from child.all(tag)

    @property
    def text(self) -> str:
        return "".join(c if isinstance(c, str) else c.text for c in self.children)


class Reader(HTMLParser):
    """Reads a page in which every element is closed, and nothing else."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.root = Element("", {})
        self.open = [self.root]
        self.feed(html)
        self.close()
        assert self.open == [self.root], [element.tag for element in self.open]

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        assert len(dict(attrs)) == len(attrs), attrs
        element = Element(tag, {key: value or "" for key, value in attrs})
        self.open[-1].children.append(element)
        if tag not in VOID:
            self.open.append(element)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.handle_starttag(tag, attrs)
        if tag not in VOID:
            self.open.pop()

    def handle_endtag(self, tag: str) -> None:
        assert self.open[-1].tag == tag, f"{self.open[-1].tag} is closed by {tag}"
        self.open.pop()

    def handle_data(self, data: str) -> None:
        self.open[-1].children.append(data)


def parity(**changes: Any) -> dict[str, Any]:
    """As it comes back from the file."""
    document: dict[str, Any] = json.loads(json.dumps(report(**changes).to_parity()))
    return document


@pytest.fixture
def manifest(clean_bundle: Bundle) -> Manifest:
    rows = (
        {
            "layer": "Conv2d",
            "spelling": "native",
            "onnx": ["Conv"],
            "num_nodes": 1,
            "count": 2,
            "modules": ["a", "b"],
        },
        {
            "layer": "Mish",
            "spelling": "decomposed",
            "onnx": ["Exp", "Mul"],
            "num_nodes": 5,
            "count": 1,
            "modules": [""],
            "operator": "mish",
            "lowering": "decomposed:exp",
            "reason": "the fastest on ort-cpu",
        },
    )
    return replace(clean_bundle.manifest, lowering=rows, tools={"torch": "2.13.0"})


def read(manifest: Manifest, document: dict[str, Any], **seconds: float) -> Element:
    return Reader(report_page(manifest, document, seconds or SECONDS)).root


def section(root: Element, key: str) -> Element:
    (found,) = (s for s in root.all("section") if s.attributes["id"] == key)
    return found


# --- the page as such ----------------------------------------------------------------------


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


# --- what it says --------------------------------------------------------------------------


def test_the_verdict_is_one_plain_sentence(manifest: Manifest) -> None:
    def lead(document: dict[str, Any]) -> str:
        root = read(manifest, document)
        (found,) = (p for p in root.all("p") if p.attributes.get("class") == "lead")
        return found.text

    assert lead(parity()) == (
        "This ONNX model gives PyTorch's answers. In 3 runs its error is at most 1.10 times the "
        "error that PyTorch itself makes in float32; up to 3 passes."
    )
    failed = candidate(verdict="fail", reasons=("output 'y' has rho2 9, the limit is 3",))
    assert lead(parity(verdict="fail", candidates=(failed, candidate()))) == (
        "This ONNX model does not give PyTorch's answers: 1 of 2 runs fail."
    )
    assert lead(parity(verdict="fail", reasons=("opset 18 where 20 was asked",))) == (
        "This ONNX model does not give PyTorch's answers: opset 18 where 20 was asked."
    )
    assert lead(parity(verdict="vacuous", reasons=("nothing was compared.",))) == (
        "Nothing is proved of this model: nothing was compared."
    )


def numbers_in(document: Any) -> Iterator[float | str]:
    if isinstance(document, dict):
        for value in document.values():
            yield from numbers_in(value)
    elif isinstance(document, list):
        for value in document:
            yield from numbers_in(value)
    elif isinstance(document, float | int):
        yield float(document)


def test_every_number_is_one_of_parity_json(manifest: Manifest) -> None:
    document = parity()
    root = read(manifest, document)
    shown = [float(data.attributes["value"]) for data in root.all("data")]
    assert len(shown) > 30
    assert set(shown) <= set(numbers_in(document))
    of_runs = {c[key] for c in document["candidates"] for key in ("rho2", "rhomax")} - {None}
    assert of_runs <= {
        float(data.attributes["value"]) for data in section(root, "proof").all("data")
    }
    of_layers = {v[key] for v in document["layers"]["values"] for key in ("rho2", "rhomax")}
    assert of_layers <= {
        float(data.attributes["value"]) for data in section(root, "layers").all("data")
    }
    for data in root.all("data"):
        assert float(data.text) == pytest.approx(
            float(data.attributes["value"]), rel=0.06, abs=0.006
        )


def test_the_worst_element_of_each_set_is_told_once_from_its_worst_run(
    manifest: Manifest,
) -> None:
    rows = list(section(read(manifest, parity()), "elements").all("tr"))[1:]
    (row,) = rows
    assert [cell.text for cell in (*row.all("th"), *row.all("td"))] == [
        *("normal x1", "logits[1, 7]", "0.5", "0.5000001", "+1.0e-07", "2.00"),
        "cpu, disabled",
    ]


def test_elements_that_are_not_finite_come_first_by_name(manifest: Manifest) -> None:
    worst = {"y": WorstElement(index=(), reference=float("inf"), got=float("nan"))}
    broken = candidate(golden="test_data_set_1", verdict="fail", rho2=None, worst=worst)
    root = read(manifest, parity(verdict="fail", candidates=(candidate(), broken)))
    first = list(section(root, "elements").all("tr"))[1]
    assert [cell.text for cell in first.all("td")][:4] == ["y[]", "+Inf", "NaN", "NaN"]


def test_power_names_what_was_missed(manifest: Manifest) -> None:
    said = section(read(manifest, parity()), "power").text
    assert "in 10 of 12 tensors" in said and "9 of 10 faults were noticed." in said
    assert "Not noticed in conv1.bias." in said
    assert "Not measured" in section(read(manifest, parity(power=None)), "power").text


def test_the_lowering_table_says_why(manifest: Manifest) -> None:
    rows = list(section(read(manifest, parity()), "lowering").all("tr"))[1:]
    told = [[cell.text for cell in (*row.all("th"), *row.all("td"))] for row in rows]
    assert told == [
        ["Conv2d", "2", "native", "Conv", "ONNX has an operator for it", "a, b"],
        [
            *("Mish", "1", "decomposed:exp", "Exp, Mul (5 nodes)", "the fastest on ort-cpu"),
            "the network itself",
        ],
    ]


def test_axes_and_timings(manifest: Manifest) -> None:
    root = read(manifest, parity())
    row = list(section(root, "axes").all("tr"))[1]
    assert [cell.text for cell in row.all("td")] == ["image, axis 0", "1 and more", "1, 2, 5"]
    timings = section(root, "timings").text
    assert "8.0 seconds in all" in timings and "6.2" in timings
    assert "None" in section(read(replace(manifest, dynamic_axes={}), parity()), "axes").text


# --- the plot ------------------------------------------------------------------------------


def plot_of(root: Element) -> Element:
    (plot,) = (d for d in root.all("div") if d.attributes.get("class") == "plot")
    return plot


def test_the_plot_has_a_dot_for_every_layer_at_its_height(manifest: Manifest) -> None:
    plot = plot_of(read(manifest, parity()))
    dots = [c for c in plot.all("circle") if c.attributes["class"] == "layer"]
    assert len(dots) == 6
    heights = [float(dot.attributes["cy"]) for dot in dots]
    # rho2 1.0, 0.7, 1.9, 1.2, 0.0, 0.95; y counts from above, and 0 lies on the lower edge.
    assert sorted(range(6), key=lambda i: heights[i]) == [2, 3, 0, 5, 1, 4]
    lines = {line.attributes["class"]: line for line in plot.all("line")}
    assert float(lines["floor"].attributes["y1"]) == heights[0]
    assert float(lines["limit"].attributes["y1"]) < min(heights)
    places = [float(dot.attributes["cx"].rstrip("%")) for dot in dots]
    assert places == sorted(places) and places[0] > 0 and places[-1] < 100
    (title,) = dots[2].all("title")
    assert title.text == "blocks.2.conv (Conv): rho2 1.90, rhomax 2.38, package/net.py:12"


def test_the_plot_is_told_to_those_who_do_not_see_it(manifest: Manifest) -> None:
    plot = plot_of(read(manifest, parity()))
    assert plot.attributes["role"] == "img"
    assert plot.attributes["aria-label"] == (
        "Error of 6 layers in graph order, as a multiple of the error that PyTorch itself makes "
        "in float32. All of them pass (up to 3); the worst is blocks.2.conv (Conv) with rho2 1.90."
    )


def test_layers_beyond_the_limit_have_another_shape_and_the_first_is_named(
    manifest: Manifest,
) -> None:
    root = read(manifest, parity(layers=layer_errors(1.0, None, 5e8, 4.0, 1e-9)))
    plot = plot_of(root)
    assert len([c for c in plot.all("circle") if c.attributes["class"] == "layer"]) == 2
    assert len([p for p in plot.all("path") if p.attributes["class"] == "beyond"]) == 3
    said = section(root, "layers").text
    assert "The first of 3 layers beyond the limits: blocks.1.conv (Conv)" in said
    assert "node_conv2d_1 package/net.py:11" in said
    assert "3 of them are beyond a limit" in plot.attributes["aria-label"]
    heights = [
        float(value)
        for element in (*plot.all("circle"), *plot.all("svg"))
        if (value := element.attributes.get("cy") or element.attributes.get("y"))
    ]
    assert all(26 <= height <= 266 for height in heights), heights


def test_the_worst_layers_are_listed_as_they_are_numbered(manifest: Manifest) -> None:
    root = read(manifest, parity())
    (listed,) = root.all("ol")
    items = [item.text for item in listed.all("li")]
    assert items[0] == "blocks.2.conv (Conv): rho2 1.90, rhomax 2.38" and len(items) == 5
    names = [
        t.text
        for t in plot_of(root).all("text")
        if "name" in t.attributes.get("class", "").split()
    ]
    assert names == ["1 blocks.2.conv", "2", "3", "4", "5"]


def test_one_layer_and_none(manifest: Manifest) -> None:
    one = plot_of(read(manifest, parity(layers=layer_errors(1.0))))
    assert len(list(one.all("title"))) == 1
    nothing = parity(layers=LayerErrors(reason="it costs too much. Run something else"))
    said = section(read(manifest, nothing), "layers").text
    assert "Not measured: it costs too much. Run something else." in said


def test_a_report_from_before_layers_were_measured_gives_a_page(manifest: Manifest) -> None:
    old = parity()
    del old["layers"], old["power"]["missed"]
    for entry in old["candidates"]:
        del entry["worst"]
    root = read(manifest, old)
    assert "were not measured" in section(root, "layers").text
    assert "elements" not in [found.attributes["id"] for found in root.all("section")]
