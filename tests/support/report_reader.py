"""report.html read back: its elements and its sections, from facts as a file holds them."""

import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from html.parser import HTMLParser
from typing import Any

from dlzoo.runtime.bundle.manifest import Manifest
from dlzoo.runtime.pages.report_page import report_page
from tests.support.report_facts import report

VOID = {"meta", "br", "hr", "img", "input", "link"}
SECONDS = {"build": 0.5, "export": 6.25, "layers": 1.25}


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


def read(manifest: Manifest, document: dict[str, Any], **seconds: float) -> Element:
    return Reader(report_page(manifest, document, seconds or SECONDS)).root


def section(root: Element, key: str) -> Element:
    (found,) = (s for s in root.all("section") if s.attributes["id"] == key)
    return found
