"""``dlzoo verify --server``: the same proof, of a server's answers."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from dlzoo.errors import ArgumentError

if TYPE_CHECKING:
    from dlzoo.runtime.proof.recorded import Tolerance
    from dlzoo.runtime.remote.images import ImageAgreement
    from dlzoo.runtime.remote.verify import RemoteReport


def verify_server(
    url: str,
    *,
    bundle: Path | None,
    model: str | None,
    golden: Path | None,
    tolerance: Tolerance | None,
    data: Path | None,
    timeout_s: float,
    json: bool,
) -> None:
    """Prove a server's model, and print the result.

    Raises:
        ArgumentError: an option is missing, or does not fit this kind of model.
        ProofError: the verdict is not pass.
        ServerError: the server cannot be reached, has no such model, or speaks another protocol.
    """
    from dlzoo.cli.console import print_document, stage_display
    from dlzoo.runtime.bundle.bundle import Bundle
    from dlzoo.runtime.proof.limits import DEFAULT_LIMITS
    from dlzoo.runtime.proof.report import ProofError
    from dlzoo.runtime.remote.connect import connect
    from dlzoo.runtime.remote.expectation import expectation_of, recorded_expectation
    from dlzoo.runtime.remote.images import compare_images
    from dlzoo.runtime.remote.verify import report_images, verify_remote

    opened = None
    if golden is None:
        if bundle is None:
            raise ArgumentError(
                "--server needs a BUNDLE to compare with, or --golden DIR and a tolerance "
                "(--rtol, --atol)."
            )
        opened = Bundle.open(bundle)
        expected = expectation_of(opened)
        name = model or opened.manifest.served_name
    else:
        if data is not None:
            raise ArgumentError(
                "--data needs a bundle, which says how images become tensors. Leave --golden out."
            )
        expected = recorded_expectation(
            bundle,
            golden,
            tolerance,
            model=model,
            limits=DEFAULT_LIMITS,
        )
        name = model or expected.name
    remote = connect(url, name, timeout_s=timeout_s)
    images: tuple[ImageAgreement, ...] = ()
    try:
        with stage_display(quiet=json) as display:
            facts = remote.facts()
            if opened is not None and data is not None:
                images = compare_images(remote, facts, opened, data, progress=display)
            if opened is not None and facts.takes_image_files:
                if data is None:
                    raise ArgumentError(
                        f"{name} on the server takes image files, to which golden data cannot be "
                        "sent. Give --data DIR with images, or the --model that takes tensors."
                    )
                report = report_images(remote, facts, expected, images)
            else:
                report = verify_remote(remote, expected, progress=display)
    finally:
        remote.close()
    report = replace(report, images=images)
    if json:
        print_document(report.to_json())
    else:
        _print(report)
    if not report:
        raise ProofError(
            f"{report.model} at {report.url}: the verdict is {report.verdict}. "
            f"{report.explanation}",
            report=report.report,
        )


def _print(report: RemoteReport) -> None:
    from dlzoo.cli.console import print_facts, print_lines
    from dlzoo.cli.report_text import print_report

    if report.report.candidates or not report.images:
        print_report(report.report)
    else:
        print_lines(
            [f"{report.report.verdict.upper()}  {report.report.bundle}, by images alone"]
        )
    facts = [("server", f"{report.facts.server} at {report.url}, model {report.model}")]
    if latency := report.latency:
        facts.append(
            (
                "latency",
                f"p50 {latency.p50_ms:.2f} ms, p99 {latency.p99_ms:.2f} ms over "
                f"{latency.num_requests} requests, batch {latency.batch}, one at a time",
            )
        )
    for images in report.images:
        text = (
            f"{images.num_images - len(images.wrong)} of {images.num_images} images sent as "
        )
        text += f"{images.sent} get the same class as here"
        if images.num_noise:
            text += f", {images.num_noise} but for float32's noise"
        facts.append(("images", text))
    print_lines([""])
    print_facts(facts)
