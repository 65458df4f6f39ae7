"""Measure running servers in turns, so that a machine's changing speed affects all of them alike."""

from __future__ import annotations

from contextlib import ExitStack

from bundles import Model
from run import IN_PROCESS, JSON_MODELS, Run
from servers import Running, Server


class AlternatingRun(Run):
    """Measure in rounds; each round measures every server once, one after the other."""

    def _measure_model(self, servers: list[Server], model: Model) -> None:
        with ExitStack() as stack:
            running = {
                server: stack.enter_context(
                    server.running(model, self._folder / server.name / model.name)
                )
                for server in servers
            }
            for protocol in self._protocols:
                if protocol != "json" or model.name in JSON_MODELS:
                    for number in range(self._arguments.rounds):
                        self._round(running, model, protocol, number)

    def _round(
        self, running: dict[Server, Running], model: Model, protocol: str, number: int
    ) -> None:
        if IN_PROCESS in self._names:
            # Each measurement separately: the best of a round would be the luckiest one.
            for concurrency, row in self._bare_rows(model)["rows"].items():
                for its in row["tries"]:
                    self._write(
                        kind="turn",
                        server=f"{IN_PROCESS}, {its['way']}",
                        model=model.name,
                        protocol=protocol,
                        concurrency=int(concurrency),
                        round=number,
                        per_second=its["per_second"],
                        cpu_ms=its["cpu_ms"],
                    )
        for server, up in running.items():
            if protocol not in server.lacks:
                for concurrency in self._concurrency:
                    self._row(
                        "turn",
                        server,
                        model,
                        up,
                        protocol,
                        concurrency=concurrency,
                        round=number,
                    )
