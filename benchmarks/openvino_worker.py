"""Runs graphs in OpenVINO as lines of JSON on stdin ask; needs openvino and numpy alone."""

import json
import sys
import time

import numpy as np
import openvino


def compile_graph(core: openvino.Core, path: str) -> openvino.CompiledModel | None:
    """The graph for the CPU in float32; None, with the reason on stderr, where it is not taken."""
    try:
        return core.compile_model(path, "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
    except RuntimeError as error:
        lines = [line.strip() for line in str(error).splitlines() if line.strip()]
        print(f"OpenVINO does not take a graph: {lines[-1]}", file=sys.stderr)
        return None


def outputs(core: openvino.Core, model: str, x: str, y: str) -> bool:
    """Write the answer to each array of a file."""
    compiled = compile_graph(core, model)
    if compiled is None:
        return False
    with np.load(x) as inputs:
        np.savez(y, *[compiled([inputs[name]])[0] for name in inputs.files])
    return True


def seconds(
    core: openvino.Core, models: dict[str, str], x: str, runs: int
) -> dict[str, float]:
    """The shortest run of each graph, the graphs taking turns."""
    compiled = {key: compile_graph(core, path) for key, path in models.items()}
    requests = {key: one.create_infer_request() for key, one in compiled.items() if one}
    with np.load(x) as inputs:
        (array,) = (inputs[name] for name in inputs.files)
    found: dict[str, list[float]] = {key: [] for key in requests}
    for _ in range(runs):
        for key, request in requests.items():
            # Once untimed, as in ONNX Runtime; inputs and outputs are shared, not copied: what is
            # timed is the graph.
            request.infer([array], share_inputs=True, share_outputs=True)
            start = time.perf_counter()
            request.infer([array], share_inputs=True, share_outputs=True)
            found[key].append(time.perf_counter() - start)
    return {key: min(times) for key, times in found.items()}


def main() -> None:
    """Answer every line with one."""
    core = openvino.Core()
    for line in sys.stdin:
        request = json.loads(line)
        work = request.pop("do")
        if work == "version":
            answer: object = openvino.__version__
        elif work == "outputs":
            answer = outputs(core, **request)
        else:
            answer = seconds(core, **request)
        print(json.dumps(answer), flush=True)


if __name__ == "__main__":
    main()
