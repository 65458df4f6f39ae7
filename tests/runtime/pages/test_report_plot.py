"""The plot of report.html: a dot for every layer, told in words too."""

from dlzoo.runtime.bundle.manifest import Manifest
from dlzoo.runtime.proof.layer_errors import LayerErrors
from tests.support.report_facts import layer_errors
from tests.support.report_reader import Element, parity, read, section


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
