"""``dlzoo verify``: replay what a bundle proves, without PyTorch."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from dlzoo.errors import ArgumentError


def verify(
    bundle: Annotated[
        Path | None,
        typer.Argument(
            metavar="BUNDLE",
            help="A bundle, or an .onnx file with --golden; not needed with --server, --golden and "
            "a tolerance.",
        ),
    ] = None,
    provider: Annotated[
        list[str] | None, typer.Option(help="cpu, cuda, …; repeatable. [cpu]")
    ] = None,
    optimization: Annotated[
        list[str] | None,
        typer.Option(
            help="ONNX Runtime's graph optimization: disabled, basic, extended or all; "
            "repeatable. [all]"
        ),
    ] = None,
    golden: Annotated[
        Path | None,
        typer.Option(help="For an .onnx file: a folder of input_N.pb and output_N.pb."),
    ] = None,
    rtol: Annotated[
        float | None,
        typer.Option(
            help="With --golden: allow atol + rtol * max|recorded| in place of an estimated error."
        ),
    ] = None,
    atol: Annotated[float | None, typer.Option(help="With --golden, see --rtol.")] = None,
    against: Annotated[
        str | None,
        typer.Option(help="Compare with this model in PyTorch, on new inputs (needs torch)."),
    ] = None,
    weights: Annotated[
        str, typer.Option(help="With --against: the weights, as for dlzoo export.")
    ] = "auto",
    seed: Annotated[int, typer.Option(help="With --against: seed of weights and inputs.")] = 0,
    allow_fallback: Annotated[
        bool,
        typer.Option("--allow-fallback", help="Allow nodes to run on another provider."),
    ] = False,
    native_library: Annotated[
        str,
        typer.Option(
            metavar="FILE|off",
            help="A library of kernels for operators of domain dlzoo; its code is run. "
            "[$DLZOO_NATIVE_LIBRARY, or the one built here]",
            show_default=False,
        ),
    ] = "auto",
    strict_special_values: Annotated[
        bool,
        typer.Option(
            "--strict-special-values",
            help="Let the answers to inputs with NaN and Inf decide, too.",
        ),
    ] = False,
    server: Annotated[
        str | None,
        typer.Option(
            metavar="URL",
            help="Prove a running server instead, one that speaks the Open Inference Protocol: "
            "http[s]://HOST:PORT or grpc[s]://HOST:PORT.",
        ),
    ] = None,
    model: Annotated[
        str | None,
        typer.Option(help="With --server: the model's name there; the bundle's if absent."),
    ] = None,
    data: Annotated[
        Path | None,
        typer.Option(
            metavar="DIR",
            help="With --server: a folder of images; their top classes are compared.",
        ),
    ] = None,
    timeout: Annotated[
        float, typer.Option(min=0.001, help="With --server: seconds to wait for one answer.")
    ] = 30.0,
    json: Annotated[bool, typer.Option("--json", help="One JSON document on stdout.")] = False,
) -> None:
    """Replay a bundle's proof, here or on a running server.

    It needs no PyTorch. Hashes are checked and the golden data run through the model. The exit status is 1 if the
    verdict is not pass.
    """
    from dlzoo.api import verify as verify_bundle
    from dlzoo.cli.console import print_document, stage_display
    from dlzoo.cli.report_text import print_report
    from dlzoo.runtime.bundle.bundle import Bundle
    from dlzoo.runtime.proof.report import ProofError

    tolerance = None
    if rtol is not None or atol is not None:
        from dlzoo.runtime.proof.recorded import Tolerance

        tolerance = Tolerance(rtol=rtol or 0.0, atol=atol or 0.0)
    if server is not None:
        from dlzoo.cli.verify_server import verify_server

        unused = {
            "--provider": provider,
            "--optimization": optimization,
            "--against": against,
            "--strict-special-values": strict_special_values or None,
        }
        for flag, value in unused.items():
            if value is not None:
                raise ArgumentError(
                    f"{flag} is for a session on this machine, --server for a server. Leave one out."
                )
        verify_server(
            server,
            bundle=bundle,
            model=model,
            golden=golden,
            tolerance=tolerance,
            data=data,
            timeout_s=timeout,
            json=json,
        )
        return
    if model is not None or data is not None:
        raise ArgumentError("--model and --data need --server. Give it, or leave them out.")
    if bundle is None:
        raise ArgumentError('dlzoo verify needs BUNDLE. Run "dlzoo verify --help".')
    with stage_display(quiet=json) as display:
        report = verify_bundle(
            bundle,
            providers=tuple(provider or ("cpu",)),
            optimizations=tuple(optimization or ("all",)),
            golden=golden,
            tolerance=tolerance,
            against=against,
            weights=weights,
            seed=seed,
            allow_fallback=allow_fallback,
            native_library=native_library,
            strict_special_values=strict_special_values,
            progress=display,
        )
    if json:
        print_document(report.to_json())
    else:
        print_report(report, Bundle.open(bundle).manifest if golden is None else None)
    if not report:
        raise ProofError(
            f"{report.bundle}: the verdict is {report.verdict}. {report.explanation}",
            report=report,
        )
