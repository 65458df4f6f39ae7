"""The page at / in a browser: a photo gets its scores, on a phone and a desktop, by keyboard too."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.headless_chromium import CHROMIUM, Page, browser_page
from tests.support.served_bundles import mean_bundle
from tests.support.serving_process import ServingProcess, serving

pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="Chromium is not installed")

LAYOUT = """(() => {
  const width = document.documentElement.clientWidth;
  const cut = [...document.querySelectorAll("h1, h2, p, li, dd, label, select, button")]
    .filter(e => { const b = e.getBoundingClientRect(); return b.width && (b.left < -1 || b.right > width + 1); })
    .map(e => e.textContent);
  return {page: document.documentElement.scrollWidth, width, cut,
    ground: getComputedStyle(document.body).backgroundColor};
})()"""


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Page]:
    with browser_page(tmp_path_factory.mktemp("browser")) as page:
        yield page


def test_a_photo_gets_its_scores(
    page: Page, server: ServingProcess, photo_folder: Path, tmp_path: Path
) -> None:
    page.open(f"{server.http}/")
    page.wait_for("!document.getElementById('card').hidden")
    assert page.evaluate(
        "[...document.getElementById('model').options].map(o => o.value)"
    ) == [
        "every_dtype",
        "mean",
        "slow",
    ]
    assert "does not say how images" in page.evaluate("document.body.innerText")
    page.evaluate(
        "(() => { const m = document.getElementById('model'); m.value = 'mean';"
        " m.dispatchEvent(new Event('change')); })()"
    )
    page.wait_for("document.getElementById('card-title').textContent.startsWith('mean')")
    page.choose_file("#file", photo_folder / "chelsea.png")
    page.wait_for("document.querySelectorAll('#scores li').length === 2")
    labels = page.evaluate("[...document.querySelectorAll('#scores .row span:first-child')].map(s => s.textContent)")  # fmt: skip
    assert set(labels) == {"bright", "dark"}
    shares = page.evaluate(
        "[...document.querySelectorAll('.fill')].map(f => f.getBoundingClientRect().width / f.parentNode.clientWidth)"
    )
    assert sum(shares) == pytest.approx(1, abs=0.02) and shares[0] >= shares[1]
    text = page.evaluate("document.body.innerText")
    assert f"Best: {labels[0]}." in text
    assert "pass: in 1 runs the error is at most 0.5 times" in text
    assert "A network for tests." in text and "its answers mean nothing" in text
    for width, height, dark in ((390, 844, False), (390, 844, True), (1280, 900, False), (1280, 900, True)):  # fmt: skip
        page.show_as(width, height, dark=dark)
        layout = page.evaluate(LAYOUT)
        assert layout["page"] <= layout["width"] == width, layout
        assert layout["cut"] == []
        assert layout["ground"] == ("rgb(20, 23, 26)" if dark else "rgb(255, 255, 255)")
        page.screenshot(tmp_path / f"{width}-{'dark' if dark else 'light'}.png")
    assert page.problems == []


def test_a_file_that_is_not_an_image_gets_a_message(
    page: Page, server: ServingProcess, tmp_path: Path
) -> None:
    page.open(f"{server.http}/?second")
    page.wait_for("!document.getElementById('card').hidden")
    page.evaluate(
        "(() => { const m = document.getElementById('model'); m.value = 'mean';"
        " m.dispatchEvent(new Event('change')); })()"
    )
    page.wait_for("document.getElementById('card-title').textContent.startsWith('mean')")
    (tmp_path / "notes.png").write_text("not an image")
    page.choose_file("#file", tmp_path / "notes.png")
    page.wait_for("document.getElementById('message').className === 'bad'")
    message = page.evaluate("document.getElementById('message').textContent")
    assert message == "The body cannot be read as an image, expected JPEG, PNG or WebP."
    assert page.evaluate("document.querySelectorAll('#scores li').length") == 0
    page.problems.clear()  # the browser logs the status 400


def test_the_keyboard_reaches_everything(page: Page, server: ServingProcess) -> None:
    page.open(f"{server.http}/?third")
    page.wait_for("!document.getElementById('card').hidden")
    page.evaluate("document.getElementById('file').disabled = false")
    reached = []
    for _ in range(5):
        page.press("Tab")
        reached.append(page.evaluate("document.activeElement.id || document.activeElement.getAttribute('href')"))  # fmt: skip
    assert reached[:2] == ["model", "file"] and "/docs" in reached
    # The drop zone shows the focus, because its input is invisible.
    page.evaluate("document.getElementById('file').focus()")
    outline = page.evaluate("getComputedStyle(document.getElementById('drop')).outlineStyle")
    assert outline == "solid"
    assert page.problems == []


def test_a_key_is_asked_for(page: Page, tmp_path: Path) -> None:
    bundle = mean_bundle(tmp_path / "mean").path
    with serving(bundle, folder=tmp_path, DLZOO_API_KEY="secret") as server:
        page.open(f"{server.http}/")
        page.wait_for("!document.getElementById('key-form').hidden")
        page.evaluate("document.getElementById('key').value = 'secret'")
        page.evaluate("document.querySelector('#key-form button').click()")
        page.wait_for("!document.getElementById('card').hidden")
        assert page.evaluate("document.getElementById('key-form').hidden")
    page.problems.clear()


def test_the_page_of_the_api(page: Page, server: ServingProcess) -> None:
    page.open(f"{server.http}/docs")
    for width in (390, 1280):
        page.show_as(width, 900, dark=False)
        layout = page.evaluate(LAYOUT)
        assert layout["page"] <= width and layout["cut"] == [], layout
    assert page.problems == []
