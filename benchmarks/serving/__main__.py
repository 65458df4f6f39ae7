"""Measure the cost of serving over the bare session, side by side with other servers, in one run.

    python benchmarks/serving --environments DIR --bundles DIR --results FILE.jsonl
    python benchmarks/serving --rounds 7 --concurrency 16 --results FILE.jsonl
    python benchmarks/serving --table FILE.jsonl > benchmarks/results/serving.md

Every row is one server, model, protocol and concurrency (closed loop): throughput, p50 and p99 of the
latency, and the server's processor time for a request: user and system time of its process and all
descendants over the row's window, by the requests answered in it. The ratios are over the session
without a server (in_process.py), measured before and after the servers; the better one counts.
Then, for each server and model: seconds until /v2/health/ready answers 200; memory over the bare
session's process; whether PyTorch is mapped; and p99 / p50 at half of the measured peak, open loop.
Every server has the same number of threads in the session and may put 8 samples together.

With ``--rounds`` all servers are up at once and take turns, for a machine whose speed changes from
minute to minute: the figures are medians, of ratios within a round (alternating.py).
"""

from __future__ import annotations

import argparse
import json
import tempfile
from pathlib import Path

from alternating import AlternatingRun
from run import IN_PROCESS, SERVERS, Run
from table import markdown
from wire import PROTOCOLS


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--servers", default=",".join([IN_PROCESS, *SERVERS]))
    parser.add_argument("--models", default="lenet5_relu,mobilenet_v2,resnet50")
    parser.add_argument("--protocols", default=",".join(PROTOCOLS))
    parser.add_argument("--concurrency", default="1,4,16,64")
    parser.add_argument("--seconds", type=float, default=4.0, help="of each row")
    parser.add_argument("--half-load", default="resnet50", help="models for p99 at half load")
    parser.add_argument("--environments", type=Path, default=Path("build/servers"))
    parser.add_argument("--bundles", type=Path, default=Path("build/bundles"))
    parser.add_argument("--results", type=Path, help="rows are appended as JSON lines")
    parser.add_argument("--rounds", type=int, default=0, help="servers take turns so often")
    parser.add_argument(
        "--table", type=Path, help="print Markdown from such a file; run nothing"
    )
    arguments = parser.parse_args()
    if arguments.table:
        rows = [json.loads(line) for line in arguments.table.read_text().splitlines()]
        print(markdown(rows))
        return
    with tempfile.TemporaryDirectory() as folder:
        results = arguments.results or Path(folder) / "results.jsonl"
        kind = AlternatingRun if arguments.rounds else Run
        kind(arguments, Path(folder), results).all()
        print(markdown([json.loads(line) for line in results.read_text().splitlines()]))


if __name__ == "__main__":
    main()
