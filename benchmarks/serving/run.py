"""Prepares models and servers, measures one after the other, and writes a line for each result."""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from bundles import Model, prepare_model
from environments import NotRunError
from machine import describe_machine
from processes import has_torch, resident_bytes, tree
from python_servers import KServeSdk, MlServer
from ray_server import RayServe
from servers import HOST, MAX_BATCH, DlzooServer, DlzooWorkers, Running, Server
from triton_server import TritonServer

HERE = Path(__file__).resolve().parent
SERVERS: dict[str, type[Server]] = {
    kind.name: kind
    for kind in (DlzooServer, DlzooWorkers, TritonServer, MlServer, KServeSdk, RayServe)
}
IN_PROCESS = "in-process"
#: JSON only for small tensors: a 224 x 224 image is 3 MB of text.
JSON_MODELS = ("lenet5", "lenet5_relu")
MIN_REQUESTS = 200
#: Further starts, if the first one was short: the median counts.
MORE_STARTS = 2
#: The time between the end of the load and the second measurement of a server's memory.
SETTLE_S = 5.0
SHORT_START_S = 6.0


class Run:
    """All rows of one call of the script."""

    def __init__(self, arguments: argparse.Namespace, folder: Path, results: Path) -> None:
        self._arguments = arguments
        self._folder = folder
        self._results = results
        self._concurrency = [int(c) for c in arguments.concurrency.split(",")]
        self._protocols = arguments.protocols.split(",")
        self._names = arguments.servers.split(",")
        unknown = set(self._names) - {IN_PROCESS, *SERVERS}
        if unknown:
            raise SystemExit(f"unknown servers: {', '.join(sorted(unknown))}")

    def all(self) -> None:
        """Prepare, then measure model by model."""
        self._write(kind="machine", **describe_machine(), seconds=self._arguments.seconds)
        servers = self._prepared()
        for name in self._arguments.models.split(","):
            model = prepare_model(name, self._arguments.bundles.resolve(), self._folder)
            self._measure_model(servers, model)

    def _measure_model(self, servers: list[Server], model: Model) -> None:
        self._in_process(model)
        for server in servers:
            self._serve(server, model)
        # This shows whether the machine became slower or faster meanwhile.
        self._in_process(model)

    def _prepared(self) -> list[Server]:
        environments = self._arguments.environments.resolve()
        environments.mkdir(parents=True, exist_ok=True)
        servers = []
        for name in self._names:
            if name == IN_PROCESS:
                continue
            server = SERVERS[name](environments)
            try:
                version = server.prepare()
            except (NotRunError, OSError, subprocess.SubprocessError) as error:
                self._write(kind="not_run", server=name, what="all", reason=str(error))
                continue
            self._write(kind="version", server=name, version=version)
            servers.append(server)
        return servers

    def _in_process(self, model: Model) -> None:
        if IN_PROCESS not in self._names:
            return
        measured = self._bare_rows(model)
        for concurrency, row in measured["rows"].items():
            del row["tries"]
            self._write(
                kind="in_process", model=model.name, concurrency=int(concurrency), **row
            )
        memory = measured["memory_bytes"]
        self._write(kind="session", model=model.name, memory_bytes=memory)

    def _bare_rows(self, model: Model) -> dict[str, Any]:
        """Memory of the bare session's process, and its rows by concurrency."""
        command = [sys.executable, str(HERE / "in_process.py"), str(model.file)]
        command += [str(model.arrays), "--threads", str(model.num_threads)]
        command += ["--max-batch", str(MAX_BATCH)]
        command += ["--concurrency", self._arguments.concurrency]
        command += ["--seconds", str(self._arguments.seconds / 4)]
        done = subprocess.run(command, check=True, stdout=subprocess.PIPE)
        measured: dict[str, Any] = json.loads(done.stdout)
        return measured

    def _serve(self, server: Server, model: Model) -> None:
        folder = self._folder / server.name / model.name
        try:
            starts = []
            with server.running(model, folder) as running:
                starts.append(running.ready_s)
                self._measure(server, model, running)
            while starts[0] < SHORT_START_S and len(starts) <= MORE_STARTS:
                with server.running(model, folder) as running:
                    starts.append(running.ready_s)
            self._write(kind="starts", server=server.name, model=model.name, ready_s=starts)
        except (NotRunError, OSError, subprocess.SubprocessError) as error:
            self._write(kind="not_run", server=server.name, what=model.name, reason=str(error))

    def _measure(self, server: Server, model: Model, running: Running) -> None:
        peak, peak_protocol = 0.0, ""
        for protocol in self._protocols:
            if protocol == "json" and model.name not in JSON_MODELS:
                continue
            if protocol in server.lacks:
                self._write(
                    kind="not_run",
                    server=server.name,
                    what=f"{model.name} {protocol}",
                    reason=server.lacks[protocol],
                )
                continue
            for concurrency in self._concurrency:
                row = self._row(
                    "row", server, model, running, protocol, concurrency=concurrency
                )
                if row and protocol != "json" and row["per_second"] > peak:
                    peak, peak_protocol = row["per_second"], protocol
        # First with buffers and arenas, then the memory that stays.
        pids = tree(running.pid)
        loaded = resident_bytes(pids)
        time.sleep(SETTLE_S)
        self._write(
            kind="process",
            server=server.name,
            model=model.name,
            loaded_bytes=loaded,
            memory_bytes=resident_bytes(pids),
            processes=len(pids),
            has_torch=has_torch(pids),
        )
        if peak and model.name in self._arguments.half_load.split(","):
            for is_poisson in (False, True):
                self._row(
                    "half_load",
                    server,
                    model,
                    running,
                    peak_protocol,
                    rate=peak / 2,
                    is_poisson=is_poisson,
                )

    def _row(
        self,
        kind: str,
        server: Server,
        model: Model,
        running: Running,
        protocol: str,
        **load: Any,
    ) -> dict[str, Any] | None:
        """Run the load generator once; a failure becomes a row."""
        job = {
            "protocol": protocol,
            "host": HOST,
            "port": running.ports.grpc if protocol == "grpc" else running.ports.http,
            "server_pid": running.pid,
            "model": model.name,
            "input_name": model.input_name,
            "output_name": model.output_name,
            "arrays": str(model.arrays),
            "seconds": self._arguments.seconds * (2 if kind == "half_load" else 1),
            "min_requests": MIN_REQUESTS,
            **{name: value for name, value in load.items() if name != "round"},
        }
        names = {"server": server.name, "model": model.name, "protocol": protocol}
        done = subprocess.run(
            [sys.executable, str(HERE / "load.py")],
            input=json.dumps(job),
            capture_output=True,
            text=True,
            timeout=600,
        )
        if done.returncode:
            reason = (done.stderr.strip().splitlines() or ["no reason given"])[-1][:500]
            self._write(kind="error", of=kind, **names, **load, reason=reason)
            return None
        row: dict[str, Any] = json.loads(done.stdout)
        self._write(kind=kind, **names, **load, **row)
        return row

    def _write(self, **row: Any) -> None:
        line = json.dumps(row)
        with self._results.open("a") as file:
            file.write(line + "\n")
        print(line[:300], file=sys.stderr, flush=True)
