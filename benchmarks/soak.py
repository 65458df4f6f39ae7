"""A soak of ``dlzoo serve``: as many requests as an hour has at a rate, mixed, each answer checked.

    python benchmarks/soak.py [BUNDLE] [--rate 100] [--hours 1] [--requests N] [--clients 16]

Binary and JSON tensors, gRPC, images to classify, metadata, mistakes, clients that go away, and a new
version every few thousand requests, as fast as the server takes them. Prints its memory over time and
the slope after the first tenth: what it would grow by in a day shows in minutes.
"""

from __future__ import annotations

import argparse
import asyncio
import io
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import grpc
import numpy as np
from PIL import Image
from tritonclient.grpc import service_pb2, service_pb2_grpc

from dlzoo.runtime.bundle.bundle import Bundle
from dlzoo.runtime.session.session import open_session

Array = np.ndarray[Any, Any]
NUM_INPUTS = 32
#: What a hundred requests are.
MIX = {
    "binary": 38,
    "json": 20,
    "grpc": 20,
    "classify": 5,
    "metadata": 3,
    "mistake": 6,
    "grpc mistake": 2,
    "goes away": 4,
    "grpc cancelled": 2,
}
RELOAD_EVERY = 5000
SAMPLE_S = 5.0


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("bundle", nargs="?", type=Path, help="lenet5_relu if absent")
    parser.add_argument(
        "--rate", type=float, default=100.0, help="requests a second of the hour"
    )
    parser.add_argument("--hours", type=float, default=1.0)
    parser.add_argument("--requests", type=int, help="in place of rate and hours")
    parser.add_argument("--clients", type=int, default=16)
    arguments = parser.parse_args()
    num_requests = arguments.requests or round(arguments.rate * 3600 * arguments.hours)
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        bundle = arguments.bundle or exported(root)
        (root / "models" / "soak").mkdir(parents=True)
        shutil.copytree(bundle, root / "models" / "soak" / "1")
        asyncio.run(soak(root, Bundle.open(bundle), num_requests, arguments.clients))


def exported(root: Path) -> Path:
    command = [sys.executable, "-m", "dlzoo", "export", "lenet5_relu", "--weights", "random"]
    subprocess.run([*command, "-o", str(root / "lenet")], check=True, capture_output=True)
    return root / "lenet"


@dataclass
class Ask:
    """A request as bytes, and the answer that it should get."""

    x: Array
    expected: Array
    binary: bytes
    text: bytes
    message: Any


class Soak:
    """The requests, the right answers, and what was counted."""

    def __init__(self, bundle: Bundle, http: str, address: str) -> None:
        self.host, _, self.port = http.removeprefix("http://").partition(":")
        self.address = address
        self.counts: Counter[str] = Counter()
        self.started = 0
        (spec,) = bundle.manifest.inputs
        (output,) = bundle.manifest.outputs
        self.output = output.name
        session = open_session(bundle, num_threads=1)
        rng = np.random.default_rng(0)
        self.asks = []
        for number in range(NUM_INPUTS):
            shape = (1 + number % 2, *(int(size) for size in spec.dims[1:]))
            x = rng.standard_normal(shape).astype(np.float32)
            expected = session.run({spec.name: x})[output.name]
            tensor = {"name": spec.name, "shape": shape, "datatype": "FP32"}
            sized = {**tensor, "parameters": {"binary_data_size": x.nbytes}}
            wanted = [{"name": output.name, "parameters": {"binary_data": True}}]
            head = json.dumps({"inputs": [sized], "outputs": wanted}).encode()
            body = json.dumps(
                {"inputs": [{**tensor, "data": x.reshape(-1).tolist()}]}
            ).encode()
            message = service_pb2.ModelInferRequest(model_name="soak")
            message.inputs.add(name=spec.name, datatype="FP32", shape=shape)
            message.raw_input_contents.append(x.tobytes())
            path = "/v2/models/soak/infer"
            length = f"Inference-Header-Content-Length: {len(head)}\r\n"
            self.asks.append(
                Ask(
                    x=x,
                    expected=expected,
                    binary=post(path, head + x.tobytes(), length),
                    text=post(path, body),
                    message=message,
                )
            )
        self.picture = picture()
        self.classes: Any = None

    async def client(self, num_requests: int, seed: int) -> None:
        """One client: keeps a connection of each kind, and asks until all have asked enough."""
        draw = random.Random(seed)
        kinds, weights = list(MIX), list(MIX.values())
        connection = Connection(self.host, int(self.port))
        async with grpc.aio.insecure_channel(self.address) as channel:
            stub = service_pb2_grpc.GRPCInferenceServiceStub(channel)
            while self.started < num_requests:
                self.started += 1
                (kind,) = draw.choices(kinds, weights)
                ask = draw.choice(self.asks)
                await self.one(kind, ask, connection, stub, draw)
                self.counts[kind] += 1
        await connection.close()

    async def one(
        self, kind: str, ask: Ask, connection: Connection, stub: Any, draw: random.Random
    ) -> None:
        match kind:
            case "binary":
                status, headers, body = await connection.ask(ask.binary)
                assert status == 200, body
                size = int(headers["inference-header-content-length"])
                self.check(np.frombuffer(body[size:], np.float32), ask)
            case "json":
                status, _, body = await connection.ask(ask.text)
                assert status == 200, body
                self.check(np.array(json.loads(body)["outputs"][0]["data"]), ask)
            case "grpc":
                answer = await stub.ModelInfer(ask.message)
                self.check(np.frombuffer(answer.raw_output_contents[0], np.float32), ask)
            case "classify":
                status, _, body = await connection.ask(self.picture)
                assert status == 200, body
                classes = json.loads(body)["classes"]
                self.classes = self.classes or classes
                for got, first in zip(classes, self.classes, strict=True):
                    assert got["index"] == first["index"]
                    assert abs(got["score"] - first["score"]) < 1e-5
            case "metadata":
                path = draw.choice(["/v2/models/soak", "/v2/models/stats", "/metrics", "/v2"])
                status, _, body = await connection.ask(get(path))
                assert status == 200, body
            case "mistake":
                wrong, expected = draw.choice(MISTAKES)
                status, _, body = await connection.ask(wrong)
                assert status == expected and list(json.loads(body)) == ["error"], (
                    status,
                    body,
                )
            case "grpc mistake":
                message = service_pb2.ModelInferRequest()
                message.CopyFrom(ask.message)
                message.raw_input_contents[0] = b"123"
                try:
                    await stub.ModelInfer(message)
                except grpc.aio.AioRpcError as error:
                    assert error.code() is grpc.StatusCode.INVALID_ARGUMENT, error
                else:
                    raise AssertionError("a request of three bytes was answered")
            case "goes away":
                other = Connection(self.host, int(self.port))
                await other.send(ask.binary[: draw.choice([40, -5, None])])
                await other.close()
            case "grpc cancelled":
                call = stub.ModelInfer(ask.message)
                await asyncio.sleep(0)
                call.cancel()

    @staticmethod
    def check(got: Array, ask: Ask) -> None:
        error = np.abs(got.reshape(ask.expected.shape) - ask.expected).max()
        # Requests that ran together are added up in another order.
        assert error <= 1e-5 * np.abs(ask.expected).max(), error

    async def reload(self, models: Path, version: int) -> None:
        """A version more, proved while the others ask, and the oldest one gone."""
        shutil.copytree(models / str(version - 1), models.parent.parent / "new")
        os.rename(models.parent.parent / "new", models / str(version))
        connection = Connection(self.host, int(self.port))
        status, _, body = await connection.ask(post("/v2/repository/models/soak/load", b"{}"))
        assert status == 200, body
        await connection.close()
        shutil.rmtree(models / str(version - 1))
        self.counts["reload"] += 1


class Connection:
    """One HTTP connection, kept and opened again where the server has closed it."""

    def __init__(self, host: str, port: int) -> None:
        self._place = (host, port)
        self._streams: tuple[asyncio.StreamReader, asyncio.StreamWriter] | None = None

    async def send(self, request: bytes) -> asyncio.StreamReader:
        if self._streams is None:
            self._streams = await asyncio.open_connection(*self._place)
        reader, writer = self._streams
        writer.write(request)
        await writer.drain()
        return reader

    async def ask(self, request: bytes) -> tuple[int, dict[str, str], bytes]:
        reader = await self.send(request)
        head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").split("\r\n")
        pairs = (line.partition(": ") for line in head[1:] if line)
        headers = {name.lower(): value for name, _, value in pairs}
        body = await reader.readexactly(int(headers["content-length"]))
        if headers.get("connection") == "close":
            await self.close()
        return int(head[0].split()[1]), headers, body

    async def close(self) -> None:
        if self._streams is not None:
            self._streams[1].close()
            self._streams = None


def get(path: str) -> bytes:
    return f"GET {path} HTTP/1.1\r\nHost: localhost\r\n\r\n".encode()


def post(path: str, body: bytes, more: str = "") -> bytes:
    length = f"Content-Length: {len(body)}\r\n"
    return f"POST {path} HTTP/1.1\r\nHost: localhost\r\n{more}{length}\r\n".encode() + body


MISTAKES = [
    (post("/v2/models/nobody/infer", b'{"inputs": []}'), 400),
    (get("/v2/models/nobody"), 404),
    (get("/nowhere"), 404),
    (post("/v2/models/soak/infer", b'{"inputs": [{"name": "x"'), 400),
    (post("/v2/models/soak/infer", b"{}", "Inference-Header-Content-Length: 99\r\n"), 400),
    (post("/v2/models/soak/classify", b"no picture"), 400),
    (post("/v2/repository/models/nobody/load", b"{}"), 404),
]


def picture() -> bytes:
    file = io.BytesIO()
    pixels = np.random.default_rng(0).integers(0, 256, (40, 60, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(file, "PNG")
    return post("/v2/models/soak/classify?k=3", file.getvalue())


@dataclass(frozen=True)
class Sample:
    """The server at one time."""

    seconds: float
    requests: int
    rss_mb: float
    num_files: int
    num_threads: int

    @classmethod
    def of(cls, pid: int, start: float, requests: int) -> Sample:
        status = Path(f"/proc/{pid}/status").read_text()
        fields = dict(line.split(":", 1) for line in status.splitlines() if ":" in line)
        return cls(
            seconds=time.perf_counter() - start,
            requests=requests,
            rss_mb=int(fields["VmRSS"].split()[0]) / 1024,
            num_files=len(os.listdir(f"/proc/{pid}/fd")),
            num_threads=int(fields["Threads"]),
        )


async def soak(root: Path, bundle: Bundle, num_requests: int, num_clients: int) -> None:
    with (root / "server.log").open("w") as log:
        process = subprocess.Popen(
            [
                *(sys.executable, "-m", "dlzoo", "serve", str(root / "models"), "--json"),
                *("--http", "127.0.0.1:0", "--grpc", "127.0.0.1:0", "--drain-delay", "0"),
            ],
            stdout=subprocess.PIPE,
            stderr=log,
            text=True,
        )
    assert process.stdout is not None
    try:
        ready = json.loads(process.stdout.readline())
        run = Soak(bundle, ready["http"], ready["grpc"])
        start = time.perf_counter()
        samples = [Sample.of(process.pid, start, 0)]
        clients = [
            asyncio.create_task(run.client(num_requests, seed)) for seed in range(num_clients)
        ]
        version = 2
        while not all(client.done() for client in clients):
            await asyncio.wait(clients, timeout=SAMPLE_S)
            samples.append(Sample.of(process.pid, start, run.started))
            if run.started >= (version - 1) * RELOAD_EVERY:
                await run.reload(root / "models" / "soak", version)
                version += 1
        for client in clients:
            client.result()
        await asyncio.sleep(2)  # connections that were left are noticed
        samples.append(Sample.of(process.pid, start, run.started))
        process.send_signal(signal.SIGTERM)
        status = process.wait(60)
    finally:
        process.kill()
    said = (root / "server.log").read_text()
    assert status == 0 and "Traceback" not in said, said[-3000:]
    show(run.counts, samples)


def show(counts: Counter[str], samples: list[Sample]) -> None:
    first, last = samples[0], samples[-1]
    print(f"{last.requests:,} requests in {last.seconds:.0f} s, each answer checked:")
    print("  " + ", ".join(f"{count:,} {kind}" for kind, count in counts.most_common()))
    print(f"{'seconds':>8} {'requests':>9} {'RSS MB':>7} {'files':>6} {'threads':>8}")
    step = max(1, len(samples) // 12)
    for sample in [*samples[:-1:step], last]:
        print(
            f"{sample.seconds:8.0f} {sample.requests:9,} {sample.rss_mb:7.1f} "
            f"{sample.num_files:6} {sample.num_threads:8}"
        )
    late = [s for s in samples if s.requests >= last.requests / 10]
    requests = np.array([s.requests for s in late], np.float64)
    slope = np.polyfit(requests, [s.rss_mb for s in late], 1)[0] if len(late) > 2 else np.nan
    print(
        f"slope after the first tenth {slope * 1e5:+.2f} MB per 100,000 requests; open files "
        f"{first.num_files} at the start, {last.num_files} at the end; threads "
        f"{first.num_threads} and {last.num_threads}"
    )


if __name__ == "__main__":
    main()
