"""Architectures of torchvision and timm: what dlzoo hands over, and what a bare export gives.

    python benchmarks/anybodys_networks.py torchvision --results FILE.jsonl
    python benchmarks/anybodys_networks.py timm --results FILE.jsonl --limit 20

Needs torchvision or timm beside dlzoo, in an environment of its own. Every model runs in a
process of its own (forked from one that has imported everything), at opsets 17 and 20, on images
of 64 x 64 where it passes there and else of its own size, and appends a line to the results; what
has a line is not run again. ``bare`` is ``torch.onnx.export`` and ONNX Runtime as it comes, called
wrong where its opset is not the one asked for, where it cannot run at a batch it was not traced
with, or where its answer to N(0, 1) differs by more than 1e-3 of the largest output.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import re
import tempfile
import time
from collections import Counter
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

OPSETS = (17, 20)
SMALL_SIZE = 64
BARE_TOLERANCE = 1e-3
#: Sizes of a family's members in their names, smallest first.
SIZE_WORDS = (
    *(
        "zepto",
        "atto",
        "femto",
        "pico",
        "nano",
        "xxtiny",
        "xxs",
        "xx",
        "xtiny",
        "xs",
        "x",
        "ti",
    ),
    *(
        "tiny",
        "t",
        "s",
        "small",
        "xsmall",
        "pwee",
        "wee",
        "dwee",
        "dpwee",
        "little",
        "dlittle",
    ),
    *("m", "medium", "mediumd", "betwixt", "b", "base", "l", "large", "xl", "xlarge", "xxl"),
    *("xxlarge", "h", "huge", "giant", "giantopt", "gigantic"),
)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("library", choices=("torchvision", "timm"))
    parser.add_argument("--results", type=Path, required=True)
    parser.add_argument("--limit", type=int, help="stop after so many models")
    parser.add_argument(
        "--minutes", type=float, default=1e9, help="start none after this long"
    )
    parser.add_argument("--timeout", type=float, default=600, help="seconds for one model")
    parser.add_argument(
        "--max-parameters",
        type=float,
        default=1e8,
        help="larger networks are listed as not run: they take minutes and gigabytes each",
    )
    arguments = parser.parse_args()
    run_all(arguments)
    print_table(arguments.results)


def run_all(arguments: argparse.Namespace) -> None:
    done = {row["model"] for row in read_rows(arguments.results)}
    names = [n for n in names_of(arguments.library) if f"{arguments.library}:{n}" not in done]
    # Small ones first: what is cut off by the clock is the largest.
    names.sort(key=lambda name: parameters_of(f"{arguments.library}:{name}"))
    until = time.monotonic() + 60 * arguments.minutes
    import_everything()
    for name in names[: arguments.limit]:
        if time.monotonic() > until:
            break
        row = run_in_a_process(
            f"{arguments.library}:{name}", arguments.max_parameters, arguments.timeout
        )
        with arguments.results.open("a") as file:
            file.write(json.dumps(row) + "\n")
        print(row["model"], *(f"{k}: {v['outcome']}" for k, v in row["runs"].items()))


def import_everything() -> None:
    """What an export imports on its way, a third of a small network's time."""
    import torch

    torch.set_num_threads(1)  # a pool of threads would not survive the fork
    torch.onnx.export(torch.nn.ReLU(), (torch.zeros(1),), dynamo=True, verbose=False)


def run_in_a_process(model: str, max_parameters: float, timeout: float) -> dict[str, Any]:
    """Run a model where nothing of it stays, and where it can be killed."""
    fork = multiprocessing.get_context("fork")
    receiver, sender = fork.Pipe(duplex=False)
    process = fork.Process(target=send_row, args=(sender, model, max_parameters))
    process.start()
    sender.close()
    try:
        if receiver.poll(timeout):
            row: dict[str, Any] = receiver.recv()
            return row
        return crash_row(model, "longer than the time limit")
    except EOFError:
        process.join()
        return crash_row(model, f"ended with {process.exitcode}")
    finally:
        process.kill()
        process.join()


def send_row(sender: Connection, model: str, max_parameters: float) -> None:
    try:
        sender.send(run_one(model, max_parameters))
    except Exception as error:
        sender.send(crash_row(model, f"{type(error).__name__}: {error}"))


def crash_row(model: str, reason: str) -> dict[str, Any]:
    last = (reason.strip().splitlines() or ["no reason"])[-1]
    return {"model": model, "runs": {"process": {"outcome": "crash", "reason": last}}}


def names_of(library: str) -> list[str]:
    """All of torchvision's classifiers; of timm the smallest-sounding of each family."""
    if library == "torchvision":
        import torchvision

        names: list[str] = torchvision.models.list_models(module=torchvision.models)
        return names
    import timm

    families: dict[str, list[str]] = {}
    for name in timm.list_models():
        words = [re.sub(r"\d.*", "", word) for word in name.split("_")]
        family = "_".join(w for w in words if w and w not in SIZE_WORDS)
        families.setdefault(family, []).append(name)

    def smallness(name: str) -> tuple[int, int, str]:
        sizes = [SIZE_WORDS.index(word) for word in name.split("_") if word in SIZE_WORDS]
        numbers = [int(n) for n in re.findall(r"\d+", name)]
        return (min(sizes, default=0), numbers[0] if numbers else 0, name)

    return [min(members, key=smallness) for members in families.values()]


def run_one(model: str, max_parameters: float) -> dict[str, Any]:
    """Export at each opset with dlzoo and bare."""
    from dlzoo.zoo.sources.input_spec import InputSpec
    from dlzoo.zoo.sources.load import load_source
    from dlzoo.zoo.sources.source import SourceOptions

    num_parameters = parameters_of(model)
    if num_parameters > max_parameters:
        reason = f"{num_parameters / 1e6:.0f} M parameters"
        return {"model": model, "runs": {"process": {"outcome": "not run", "reason": reason}}}
    source = load_source(model)
    small = InputSpec(
        name="input", shape=(1, source.inputs[0].shape[1], SMALL_SIZE, SMALL_SIZE)
    )
    size: tuple[int, int] | None = (SMALL_SIZE, SMALL_SIZE)
    try:
        load_source(model, SourceOptions(inputs=(small,)))
    except Exception:  # takes its own size alone
        size, small = None, source.inputs[0]
    while True:
        runs: dict[str, Any] = {}
        for opset in OPSETS:
            runs[f"dlzoo {opset}"] = run_dlzoo(model, opset, size)
            runs[f"bare {opset}"] = run_bare(source.network, opset, small.shape)
        is_passed = all(runs[f"dlzoo {opset}"]["outcome"] == "pass" for opset in OPSETS)
        if is_passed or size is None:
            return {"model": model, "input": list(small.shape), "runs": runs}
        # Small images are for speed; what counts is the size that a user gets by default.
        size, small = None, source.inputs[0]


def parameters_of(model: str) -> int:
    """Counted without making the weights, where the builder does not look at them."""
    import torch

    try:
        with torch.device("meta"):
            network = build(model)
    except (NotImplementedError, RuntimeError):
        network = build(model)
    return sum(p.numel() for p in network.parameters())


def build(model: str) -> Any:
    library, name = model.split(":")
    if library == "timm":
        import timm

        return timm.create_model(name)
    import torchvision

    slow_default = {"init_weights": False} if name in ("googlenet", "inception_v3") else {}
    return torchvision.models.get_model(name, **slow_default)


def run_dlzoo(model: str, opset: int, size: tuple[int, int] | None) -> dict[str, Any]:
    import dlzoo
    from dlzoo.errors import DlzooError
    from dlzoo.export.plan.options import ExportOptions
    from dlzoo.runtime.proof.report import ProofError

    start = time.perf_counter()
    with tempfile.TemporaryDirectory() as folder:
        try:
            bundle = dlzoo.export_model(
                model,
                Path(folder) / "bundle",
                options=ExportOptions(opset=opset, image_size=size),
            )
        except ProofError as error:
            found: dict[str, Any] = {"outcome": error.report.verdict, "reason": str(error)}
        except DlzooError as error:
            found = {"outcome": "refused", "reason": str(error)}
        else:
            candidates = bundle.parity()["candidates"]
            rho2 = [c["rho2"] for c in candidates if c["rho2"] is not None]
            found = {
                "outcome": "pass",
                "opset": bundle.header.opset,
                "rho2": max(rho2),
                "power": bundle.parity()["power"],
            }
    return found | {"seconds": round(time.perf_counter() - start, 1)}


def run_bare(network: Any, opset: int, shape: tuple[int, ...]) -> dict[str, Any]:
    import numpy as np
    import onnx
    import onnxruntime
    import torch

    example = torch.zeros(2, *shape[1:])
    batch = torch.export.Dim("batch")
    start = time.perf_counter()
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "model.onnx"
        try:
            program = torch.onnx.export(
                network,
                (example,),
                dynamo=True,
                opset_version=opset,
                dynamic_shapes=({0: batch},),
                verbose=False,
            )
            assert program is not None
            program.save(path)
            model = onnx.load(path, load_external_data=False)
            delivered = {o.domain: o.version for o in model.opset_import}[""]
            session = onnxruntime.InferenceSession(path)
            x = torch.randn(3, *shape[1:])
            (y, *_) = session.run(None, {session.get_inputs()[0].name: x.numpy()})
            with torch.no_grad():
                expected = network(x).numpy()
        except Exception as error:  # whatever a user would see
            text = (str(error).strip().splitlines() or [""])[0]
            return {"outcome": "error", "reason": f"{type(error).__name__}: {text}"[:300]}
    error_size = float(np.abs(y - expected).max() / np.abs(expected).max())
    is_right = delivered == opset and error_size < BARE_TOLERANCE
    return {
        "outcome": "right" if is_right else "wrong",
        "opset": delivered,
        "relative_error": error_size,
        "seconds": round(time.perf_counter() - start, 1),
    }


def read_rows(path: Path) -> list[dict[str, Any]]:
    return (
        [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []
    )


def print_table(path: Path) -> None:
    """Outcomes by kind of run, then every model that did not pass, with its reason."""
    rows = read_rows(path)
    print(f"\n{len(rows)} models")
    for kind in [f"{who} {opset}" for opset in OPSETS for who in ("dlzoo", "bare")]:
        outcomes = Counter(
            row["runs"].get(kind, {"outcome": "crash"})["outcome"] for row in rows
        )
        print(f"{kind:9}", ", ".join(f"{v} {k}" for k, v in outcomes.most_common()))
    print()
    for row in rows:
        for kind, run in row["runs"].items():
            if run["outcome"] not in ("pass", "right") and not kind.startswith("bare"):
                print(f"{row['model']} {kind}: {run['outcome']}: {run['reason']}")


if __name__ == "__main__":
    main()
