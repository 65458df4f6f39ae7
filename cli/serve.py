"""``dlzoo serve``: bundles behind the Open Inference Protocol, over HTTP and gRPC."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from dlzoo.errors import ArgumentError, InstallationError

if TYPE_CHECKING:
    from dlzoo.runtime.serve.process.settings import Listening


def serve(
    sources: Annotated[
        list[Path],
        typer.Argument(
            metavar="BUNDLE...|MODEL_REPOSITORY",
            help="Bundles, or a folder of MODEL/VERSION/manifest.json.",
        ),
    ],
    http: Annotated[
        str, typer.Option(metavar="HOST:PORT|off", help="The address of the HTTP server.")
    ] = "127.0.0.1:8000",
    grpc: Annotated[
        str, typer.Option(metavar="HOST:PORT|off", help="The address of the gRPC server.")
    ] = "127.0.0.1:8001",
    provider: Annotated[str, typer.Option(help="cpu, cuda, …")] = "cpu",
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
    max_batch: Annotated[
        int,
        typer.Option(min=1, help="The most samples in one run, of one request or of several."),
    ] = 8,
    max_delay_ms: Annotated[
        float,
        typer.Option(min=0, help="How long an incomplete batch waits for more requests."),
    ] = 0.0,
    queue_size: Annotated[
        int,
        typer.Option(
            min=1, help="Requests that may wait, per model; further ones get status 429."
        ),
    ] = 256,
    instances: Annotated[
        int, typer.Option(min=1, help="Runs of one model at the same time.")
    ] = 1,
    threads: Annotated[
        int | None,
        typer.Option(
            min=1,
            help="Threads of one run. [one per core, shared by the workers]",
            show_default=False,
        ),
    ] = None,
    workers: Annotated[
        int,
        typer.Option(
            min=1, help="Processes that share the ports, each with all models (Linux)."
        ),
    ] = 1,
    timeout: Annotated[
        float, typer.Option(min=0.001, help="Seconds after which a request is abandoned.")
    ] = 30.0,
    max_request_mib: Annotated[
        int, typer.Option(min=1, max=1024, help="The largest request, uncompressed.")
    ] = 64,
    max_json_mib: Annotated[
        int,
        typer.Option(
            min=1, max=1024, help="The largest JSON part; binary data are not counted."
        ),
    ] = 8,
    max_pending_mib: Annotated[
        int, typer.Option(min=1, help="All requests in progress together.")
    ] = 512,
    max_image_pixels: Annotated[
        int, typer.Option(min=1, help="The largest image that is decoded, height times width.")
    ] = 50_000_000,
    refuse_non_finite: Annotated[
        bool, typer.Option("--refuse-non-finite", help="Refuse inputs with NaN or infinities.")
    ] = False,
    poll: Annotated[
        float, typer.Option(min=0, help="Seconds between checks for new versions; 0: never.")
    ] = 0.0,
    keep_versions: Annotated[
        int, typer.Option(min=1, help="How many of a model's newest versions are served.")
    ] = 1,
    fixed_models: Annotated[
        bool, typer.Option("--fixed-models", help="Do not let clients load or unload models.")
    ] = False,
    api_key_file: Annotated[
        Path | None,
        typer.Option(
            help="Require clients to send the key in this file. [$DLZOO_API_KEY]",
            show_default=False,
        ),
    ] = None,
    tls_cert: Annotated[
        Path | None, typer.Option(help="A PEM certificate: serve HTTPS and gRPC over TLS.")
    ] = None,
    tls_key: Annotated[
        Path | None, typer.Option(help="The certificate's key, PEM, unencrypted.")
    ] = None,
    drain_delay: Annotated[
        float,
        typer.Option(min=0, help="On SIGTERM: seconds from not ready to not listening."),
    ] = 1.0,
    drain_timeout: Annotated[
        float,
        typer.Option(min=1, help="On SIGTERM: seconds to wait for requests in progress."),
    ] = 30.0,
    json: Annotated[
        bool, typer.Option("--json", help="The addresses as one JSON document on stdout.")
    ] = False,
) -> None:
    """Serve bundles over HTTP and gRPC: Open Inference Protocol.

    Every bundle is proved again before it takes requests. Open the HTTP address in a browser to
    try a picture. On SIGTERM the server finishes the requests in progress, then stops.
    """
    import logging

    try:
        from dlzoo.runtime.serve.limits import ServerLimits
        from dlzoo.runtime.serve.models.batching import BatchSettings
        from dlzoo.runtime.serve.models.served_model import ModelSettings
        from dlzoo.runtime.serve.process.address import Address
        from dlzoo.runtime.serve.process.event_loop import run_until_complete
        from dlzoo.runtime.serve.process.server import serve as run_server
        from dlzoo.runtime.serve.process.settings import ServerSettings
        from dlzoo.runtime.serve.workers.supervisor import serve_with_workers
    except ModuleNotFoundError as error:
        raise InstallationError(
            f"dlzoo serve needs the package {(error.name or 'of its extra').split('.')[0]}, "
            'which is not installed. Run: pip install "dlzoo[serve]"'
        ) from None

    logging.basicConfig(format="%(asctime)s %(levelname)s %(message)s", level=logging.INFO)
    logging.getLogger("uvicorn").setLevel(logging.WARNING)
    http_address, grpc_address = Address.parse(http, "http"), Address.parse(grpc, "grpc")
    if http_address is None and grpc_address is None:
        raise ArgumentError("--http and --grpc are both off, expected at least one address.")
    if (tls_cert is None) != (tls_key is None):
        raise ArgumentError("--tls-cert and --tls-key go together. Give both or none.")
    for path in (tls_cert, tls_key):
        if path is not None and not path.is_file():
            raise ArgumentError(f"{path} is not a file. Give a PEM certificate and its key.")
    mib = 2**20
    settings = ServerSettings(
        http=http_address,
        grpc=grpc_address,
        limits=ServerLimits(
            request_bytes=max_request_mib * mib,
            json_bytes=max_json_mib * mib,
            pending_bytes=max(max_pending_mib, max_request_mib) * mib,
            timeout_s=timeout,
            image_pixels=max_image_pixels,
        ),
        api_key=_api_key(api_key_file),
        tls_cert=tls_cert,
        tls_key=tls_key,
        fixed_models=fixed_models,
        poll_s=poll,
        drain_delay_s=drain_delay,
        drain_timeout_s=drain_timeout,
    )
    model_settings = ModelSettings(
        provider=provider,
        allow_fallback=allow_fallback,
        native_library=native_library,
        num_threads=threads,
        refuse_non_finite=refuse_non_finite,
        batching=BatchSettings(
            max_batch=max_batch,
            max_delay_s=max_delay_ms / 1000,
            queue_size=queue_size,
            num_instances=instances,
        ),
    )
    on_ready = _print_as_json if json else _print_ready
    if workers == 1:
        work = run_server(
            sources, model_settings, settings, keep_versions=keep_versions, on_ready=on_ready
        )
    else:
        work = serve_with_workers(
            sources,
            model_settings,
            settings,
            num_workers=workers,
            keep_versions=keep_versions,
            on_ready=on_ready,
        )
    run_until_complete(work)


def _api_key(path: Path | None) -> str | None:
    """The API key, from a file or the environment: command lines are visible to other users."""
    import os

    key: str | None
    if path is not None:
        try:
            key = path.read_text(encoding="utf-8").strip()
        except (OSError, UnicodeDecodeError):
            raise ArgumentError(
                f"--api-key-file {path} cannot be read. Give a text file that holds the key."
            ) from None
    else:
        key = os.environ.get("DLZOO_API_KEY")
        if key is None:
            return None
    if not key or not key.isascii() or not key.isprintable():
        raise ArgumentError(
            "The API key is empty or contains characters other than printable ASCII. "
            "Make one: openssl rand -hex 32"
        )
    return key


def _print_ready(listening: Listening) -> None:
    models = ", ".join(f"{name} version {version}" for name, version in listening.models)
    places = [listening.http, listening.grpc and f"grpc://{listening.grpc}"]
    print(f"ready: {models} at {' and '.join(p for p in places if p)}", flush=True)


def _print_as_json(listening: Listening) -> None:
    import json

    models = [{"name": name, "version": version} for name, version in listening.models]
    document = {"http": listening.http, "grpc": listening.grpc, "models": models}
    print(json.dumps(document), flush=True)
