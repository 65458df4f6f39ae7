"""Pages for people: classify an image, read about the API, and read a bundle's report."""

from __future__ import annotations

import base64
import hashlib
import html
import json
import re
from functools import cache
from pathlib import Path
from typing import Any

from starlette.requests import Request
from starlette.responses import HTMLResponse, Response
from starlette.routing import Route

from dlzoo.errors import BundleError
from dlzoo.runtime.protocol.refusal import Reason, RefusalError
from dlzoo.runtime.serve.http.classify_endpoint import takes_images
from dlzoo.runtime.serve.http.openapi import openapi_document
from dlzoo.runtime.serve.models.served_model import ServedModel
from dlzoo.runtime.serve.served import Served

_PAGE = Path(__file__).with_name("page.html")
#: A bundle's report holds no script and loads nothing; this enforces it for any content of the file.
_REPORT_POLICY = "default-src 'none'; style-src 'unsafe-inline'; img-src data:; sandbox"


def page_routes(served: Served) -> list[Route]:
    """Build the routes of all pages."""

    async def report(request: Request) -> Response:
        names = request.path_params
        model = served.repository.get(names["model"], names.get("version", ""))
        try:
            page = (model.bundle.path / "report.html").read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError):
            raise RefusalError(
                f"the bundle of model {model.name!r} has no report.html", Reason.NOT_FOUND
            ) from None
        return HTMLResponse(page, headers=_headers(_REPORT_POLICY))

    return [
        Route("/", _home),
        Route("/docs", _docs),
        Route("/v2/models/{model}/report", report),
        Route("/v2/models/{model}/versions/{version}/report", report),
    ]


async def _home(request: Request) -> Response:
    page, policy = _page_and_policy()
    return HTMLResponse(page, headers=_headers(policy))


async def _docs(request: Request) -> Response:
    policy = f"default-src 'none'; style-src {_hashes('style', _docs_page())}"
    return HTMLResponse(_docs_page(), headers=_headers(policy))


def _headers(policy: str) -> dict[str, str]:
    frames = "frame-ancestors 'none'; base-uri 'none'; form-action 'none'"
    return {
        "Content-Security-Policy": f"{policy}; {frames}",
        "X-Content-Type-Options": "nosniff",
        "Referrer-Policy": "no-referrer",
    }


@cache
def _page_and_policy() -> tuple[str, str]:
    page = _PAGE.read_text(encoding="utf-8")
    return page, (
        f"default-src 'none'; script-src {_hashes('script', page)}; "
        f"style-src {_hashes('style', page)}; img-src blob: data:; connect-src 'self'"
    )


def _hashes(tag: str, page: str) -> str:
    """Hash the page's own scripts or styles, so that a browser accepts no others."""
    texts = re.findall(rf"<{tag}>(.*?)</{tag}>", page, re.DOTALL)
    digests = (base64.b64encode(hashlib.sha256(t.encode()).digest()).decode() for t in texts)
    return " ".join(f"'sha256-{digest}'" for digest in digests)


def model_card(model: ServedModel) -> dict[str, Any]:
    """Summarize a bundle's model and its proof, for the page."""
    manifest = model.manifest
    try:
        parity = model.bundle.parity()
    except BundleError:
        parity = {}
    # The bundle's parity.json is not hashed, so it may hold anything.
    runs = parity.get("candidates")
    candidates = [c for c in runs if isinstance(c, dict)] if isinstance(runs, list) else []
    verdict = parity.get("verdict")
    rho2 = [c["rho2"] for c in candidates if _is_finite(c.get("rho2"))]
    return {
        "name": model.name,
        "version": model.version,
        "summary": manifest.card.get("summary"),
        "paper": manifest.card.get("paper"),
        "num_parameters": manifest.card.get("num_parameters"),
        "num_classes": manifest.card.get("num_classes"),
        "weights": manifest.describe_weights(),
        "is_untrained": manifest.weights.get("kind") == "random",
        "inputs": [str(spec) for spec in manifest.inputs],
        "outputs": [str(spec) for spec in manifest.outputs],
        "opset": manifest.opset,
        "precision": manifest.precision,
        "takes_images": takes_images(manifest),
        "has_report": (model.bundle.path / "report.html").is_file(),
        "proof": {
            "verdict": verdict if isinstance(verdict, str) else None,
            "num_runs": len(candidates),
            "rho2": max(rho2, default=None),
            "rho2_limit": manifest.rho2_limit,
        },
    }


def _is_finite(value: object) -> bool:
    return isinstance(value, int | float) and abs(value) < 1e300


@cache
def _docs_page() -> str:
    """Write the OpenAPI document as a page that needs no script."""
    document = openapi_document()
    style = re.findall(r"<style>(.*?)</style>", _PAGE.read_text(encoding="utf-8"), re.DOTALL)[
        0
    ]
    parts = []
    for path, methods in document["paths"].items():
        for method, operation in methods.items():
            answers = "".join(
                f"<li><b>{code}</b> {html.escape(answer['description'])}</li>"
                for code, answer in operation["responses"].items()
            )
            asked = operation.get("requestBody", {}).get("content", {})
            shown = "".join(
                f"<p>Body: <code>{html.escape(kind)}</code></p>{_example(content)}"
                for kind, content in asked.items()
            )
            parts.append(
                f"<section><h2><code>{method.upper()} {html.escape(path)}</code></h2>"
                f"<p>{html.escape(operation['summary'])}</p>{shown}<ul>{answers}</ul></section>"
            )
    return (
        '<!doctype html><html lang="en"><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>dlzoo: the API</title><style>{style}</style><body><main>"
        '<h1>The API</h1><p>For programs: <a href="/openapi.json">openapi.json</a>. '
        'Back to the <a href="/">page</a>.</p>'
        f"{''.join(parts)}</main></body></html>"
    )


def _example(content: dict[str, Any]) -> str:
    if "example" not in content:
        return ""
    return f"<pre>{html.escape(json.dumps(content['example'], indent=1))}</pre>"
