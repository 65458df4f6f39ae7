"""``dlzoo deploy``: the files that an inference server needs for a bundle, and their check."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from dlzoo.errors import ArgumentError, DeploymentError

if TYPE_CHECKING:
    from dlzoo.runtime.deploy.deployment import Deployment


def deploy(
    bundle: Annotated[Path | None, typer.Argument(metavar="BUNDLE", help="A bundle.")] = None,
    target: Annotated[
        str | None, typer.Option(help="triton, kserve, ovms, ray or docker.")
    ] = None,
    output: Annotated[
        Path | None, typer.Option("-o", "--output", help="The folder to write.")
    ] = None,
    check: Annotated[
        Path | None,
        typer.Option(
            metavar="DIR",
            help="Check a folder that was written before, including files edited since.",
        ),
    ] = None,
    name: Annotated[
        str | None,
        typer.Option(help="The model's name on the server; the bundle's if absent."),
    ] = None,
    provider: Annotated[
        str, typer.Option(help="Where the server runs it: cpu, openvino, cuda or tensorrt.")
    ] = "cpu",
    max_batch_size: Annotated[
        int, typer.Option(min=1, help="The largest batch that the server forms.")
    ] = 32,
    ensemble: Annotated[
        bool,
        typer.Option(
            "--ensemble/--no-ensemble",
            help="For triton: a second model that takes image files.",
        ),
    ] = True,
    native_library: Annotated[
        str,
        typer.Option(
            metavar="FILE|off",
            help="A library of kernels for operators of domain dlzoo, to be copied along; its code "
            "is run. [$DLZOO_NATIVE_LIBRARY, or the one built here]",
            show_default=False,
        ),
    ] = "auto",
    wheel: Annotated[
        Path | None,
        typer.Option(
            help="For docker: a wheel of dlzoo to install in the image; the release if absent."
        ),
    ] = None,
    force: Annotated[
        bool, typer.Option("--force", help="Replace a deployment that is already there.")
    ] = False,
    json: Annotated[bool, typer.Option("--json", help="One JSON document on stdout.")] = False,
) -> None:
    """Write or check the files that an inference server needs.

    Every generated file is checked against the graph and the server's own schema; with --check
    the exit status is 1 if a file does not fit.
    """
    from dlzoo.cli.console import print_document, print_lines, print_note
    from dlzoo.runtime.deploy.deployment import check_deployment

    if check is not None:
        if bundle is not None or target is not None or output is not None:
            raise ArgumentError(
                "--check takes only its folder, without BUNDLE, --target or -o."
            )
        found = check_deployment(check)
        if json:
            print_document(found.to_json())
        elif not found.problems:
            print_lines(
                [f"{check}: {len(found.files)} files fit {found.model} on {found.target}."]
            )
        else:
            print_lines([str(problem) for problem in found.problems])
        if found.problems:
            more = f" and {len(found.problems) - 1} more" if len(found.problems) > 1 else ""
            raise DeploymentError(
                f"{check} does not fit its model: {found.problems[0]}{more}."
            )
        return
    if bundle is None or target is None or output is None:
        raise ArgumentError(
            "dlzoo deploy needs BUNDLE, --target and -o, or --check DIR. "
            'Run "dlzoo deploy --help".'
        )
    written = _write(
        bundle,
        target,
        output,
        name=name,
        provider=provider,
        max_batch_size=max_batch_size,
        ensemble=ensemble,
        native_library=native_library,
        wheel=wheel,
        force=force,
    )
    if json:
        print_document(written.to_json())
        return
    for note in written.notes:
        print_note(note)
    print_lines(
        [
            f"{output}/ holds {written.model} for {written.target}, {len(written.files)} files.",
            f"After an edit: dlzoo deploy --check {output}",
        ]
    )


def _write(
    bundle: Path,
    target: str,
    output: Path,
    *,
    name: str | None,
    provider: str,
    max_batch_size: int,
    ensemble: bool,
    native_library: str,
    wheel: Path | None,
    force: bool,
) -> Deployment:
    from dlzoo.runtime.bundle.bundle import Bundle
    from dlzoo.runtime.deploy.deployment import deploy_bundle, target_named
    from dlzoo.runtime.deploy.options import PROVIDERS, DeployOptions

    target_named(target)
    if provider not in PROVIDERS:
        raise ArgumentError(f"--provider is {provider!r}, expected {', '.join(PROVIDERS)}.")
    opened = Bundle.open(bundle)
    library = None
    if opened.manifest.custom_ops:
        from dlzoo.runtime.session.custom_ops import find_native_library

        found = find_native_library(native_library, bundle=opened)
        library = found.path if found else None
    return deploy_bundle(
        opened,
        target,
        output,
        name=name,
        force=force,
        options=DeployOptions(
            provider=provider,
            max_batch_size=max_batch_size,
            ensemble=ensemble,
            native_library=library,
            wheel=wheel,
        ),
    )
