"""The image's context, its manifests and its dashboard, as written and as edited."""

import json
import re
import subprocess
import sys
import tomllib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from packaging.requirements import Requirement

from dlzoo.errors import ArgumentError, ExportError
from dlzoo.runtime.bundle.bundle import Bundle
from dlzoo.runtime.deploy.deployment import check_deployment
from dlzoo.runtime.deploy.grafana import METRICS
from dlzoo.runtime.deploy.image_lock import FORBIDDEN, NOT_SERVED, SERVED, image_lock
from dlzoo.version import __version__

ROOT = Path(__file__).resolve().parents[3]


def problems_of(folder: Path) -> list[str]:
    return [str(problem) for problem in check_deployment(folder).problems]


def edited_text(folder: Path, file: str, old: str, new: str) -> list[str]:
    path = folder / file
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new, 1))
    return problems_of(folder)


def edited(folder: Path, file: str, change: Callable[[Any], Any]) -> list[str]:
    path = folder / file
    document = json.loads(path.read_text())
    change(document)
    path.write_text(json.dumps(document))
    return problems_of(folder)


def test_the_image_serves_the_bundle_as_an_unprivileged_user(deployed, bundle: Bundle) -> None:
    folder = deployed("docker", max_batch_size=4)
    text = (folder / "Dockerfile").read_text()
    version = f"{sys.version_info[0]}.{sys.version_info[1]}"
    assert text.count(f"FROM python:{version}-slim") == 2
    assert "USER 10001:10001" in text and f"dlzoo=={__version__}" in text
    assert 'CMD ["--provider", "cpu", "--max-batch", "4"]' in text
    copied = Bundle.open(folder / "models/small/1")
    copied.check_files()
    assert copied.manifest == bundle.manifest


def test_the_lock_holds_what_serving_needs_and_no_torch(deployed) -> None:
    lines = (deployed("docker") / "requirements.lock").read_text().splitlines()[1:]
    names = {line.split("==")[0] for line in lines}
    assert {"onnxruntime", "starlette", "uvicorn", "grpcio", "protobuf", "pillow"} <= names
    assert not names & {*FORBIDDEN, *NOT_SERVED}
    pinned = (ROOT / "constraints.txt").read_text().lower().replace("_", "-").splitlines()
    # Every package of the image was tested: constraints.txt lists it.
    assert [line for line in lines if line.lower().replace("_", "-") not in pinned] == []


def test_what_is_served_is_what_the_project_asks_for() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    asked = [*project["dependencies"], *project["optional-dependencies"]["serve"]]
    names = {re.split(r"[<>=;]", text)[0] for text in asked}
    assert names == {*SERVED, *NOT_SERVED}
    assert all(Requirement(text) for text in SERVED)


def test_serving_imports_nothing_outside_the_lock(bundle: Bundle) -> None:
    """A server starts in a Python that can import nothing but the lock's packages."""
    code = """
import importlib.metadata, json, sys
allowed = set(json.loads(sys.argv[1]))
owners = importlib.metadata.packages_distributions()
normal = lambda name: name.lower().replace("_", "-").replace(".", "-")
class Refuse:
    def find_spec(self, name, path=None, target=None):
        top = name.partition(".")[0]
        found = {normal(owner) for owner in owners.get(top, ())} - {"dlzoo"}
        if found and not found & allowed:
            raise ImportError(f"{name} is not in the image")
sys.meta_path.insert(0, Refuse())
import asyncio, os, signal, threading
from pathlib import Path
import dlzoo.cli.main
from dlzoo.runtime.serve.models.served_model import ModelSettings
from dlzoo.runtime.serve.process.address import Address
from dlzoo.runtime.serve.process.server import serve
from dlzoo.runtime.serve.process.settings import ServerSettings
settings = ServerSettings(http=Address("127.0.0.1", 0), grpc=Address("127.0.0.1", 0), drain_delay_s=0)
def ready(listening):
    print("ready", listening.models)
    os.kill(os.getpid(), signal.SIGINT)
asyncio.run(serve([Path(sys.argv[2])], ModelSettings(), settings, on_ready=ready))
"""
    names = json.dumps(list(image_lock("cpu")))
    done = subprocess.run(
        [sys.executable, "-c", code, names, str(bundle.path)],
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0 and "ready" in done.stdout, done.stderr


def test_an_image_for_another_runtime_is_made_elsewhere(deployed) -> None:
    with pytest.raises(ExportError, match="which has no onnxruntime-gpu"):
        deployed("docker", provider="cuda")
    with pytest.raises(ArgumentError, match="`provider` is 'openvino', expected cpu or cuda"):
        deployed("docker", provider="openvino")


def test_a_wheel_is_copied(deployed, tmp_path: Path) -> None:
    wheel = tmp_path / f"dlzoo-{__version__}-py3-none-any.whl"
    wheel.write_bytes(b"a wheel")
    folder = deployed("docker", wheel=wheel)
    assert (folder / "wheels" / wheel.name).read_bytes() == b"a wheel"
    assert f"COPY wheels/{wheel.name} /build/" in (folder / "Dockerfile").read_text()
    other = tmp_path / "dlzoo-0.0.1-py3-none-any.whl"
    other.write_bytes(b"old")
    with pytest.raises(ArgumentError, match=r"`wheel` is .* expected a file named dlzoo-"):
        (tmp_path / "again").mkdir()
        from dlzoo.runtime.deploy.deployment import deploy_bundle
        from dlzoo.runtime.deploy.options import DeployOptions

        bundle = Bundle.open(folder / "models/small/1")
        options = DeployOptions(wheel=other)
        deploy_bundle(bundle, "docker", tmp_path / "again" / "d", options=options)


DOCKERFILE_EDITS = [
    (
        "USER 10001:10001\n",
        "",
        "USER is missing in the last stage, so the server would run as",
    ),
    ("USER 10001:10001", "USER root", "USER is 'root', expected a user that is not root"),
    ("STOPSIGNAL", "STOPSIGNALS", "line 15, STOPSIGNALS is not an instruction of Docker"),
    (
        "COPY models /models",
        "COPY model /models",
        "line 11, COPY copies 'model', which is not here",
    ),
    ("COPY models /models", "COPY ../x /models", "which lies outside the folder"),
    ("--no-deps -r", "-r", "line 4, RUN runs pip without --no-deps"),
    ("EXPOSE 8000 8001", "EXPOSE 8000", "EXPOSE lacks 8001, which the server listens on"),
    ('"0.0.0.0:8001"', '"127.0.0.1:8001"', "listens on 127.0.0.1, which nothing outside"),
    ('ENTRYPOINT ["dlzoo",', "ENTRYPOINT [dlzoo,", "ENTRYPOINT is not a JSON list of texts"),
    ("ENTRYPOINT", "# ENTRYPOINT", "ENTRYPOINT is missing in the last stage"),
]


@pytest.mark.parametrize(
    ("old", "new", "says"), DOCKERFILE_EDITS, ids=[e[2][:30] for e in DOCKERFILE_EDITS]
)
def test_a_dockerfile_that_does_not_fit_is_named(
    deployed, old: str, new: str, says: str
) -> None:
    found = edited_text(deployed("docker"), "Dockerfile", old, new)
    assert any(line.startswith("Dockerfile: ") and says in line for line in found), found


def test_a_lock_that_pins_nothing_is_named(deployed) -> None:
    folder = deployed("docker")
    path = folder / "requirements.lock"
    path.write_text(
        path.read_text().replace("onnxruntime==", "onnxruntime>=") + "torch==2.13.0\n"
    )
    first, second, third = problems_of(folder)
    assert "is 'onnxruntime>=" in first and "expected NAME==VERSION" in first
    assert second.endswith("is 'torch==2.13.0', which serving does not need")
    assert third == ("requirements.lock: has 0 packages of ONNX Runtime, expected exactly one")


def container(document: Any) -> Any:
    return document["items"][0]["spec"]["template"]["spec"]["containers"][0]


KUBERNETES_EDITS: list[tuple[Callable[[Any], Any], str]] = [
    (lambda d: d.pop("items"), "items is missing, expected a list of objects"),
    (lambda d: d["items"].pop(), "items has no Service"),
    (
        lambda d: d["items"][0].update(apiVersion="v1"),
        'items[0].apiVersion is "v1", expected one',
    ),
    (
        lambda d: d["items"][0]["metadata"].update(name="a_b"),
        'metadata.name is "a_b", expected low',
    ),
    (
        lambda d: container(d).update(readinesProbe={}),
        "readinesProbe is not a known field, expected",
    ),
    (lambda d: container(d).pop("readinessProbe"), "containers[0].readinessProbe is missing"),
    (lambda d: container(d).pop("livenessProbe"), "containers[0].livenessProbe is missing"),
    (
        lambda d: container(d)["livenessProbe"]["httpGet"].update(path="/health"),
        "livenessProbe.httpGet.path is '/health', expected '/v2/health/live'",
    ),
    (
        lambda d: container(d)["readinessProbe"]["httpGet"].update(port=9000),
        "readinessProbe.httpGet.port is 9000, the container has",
    ),
    (
        lambda d: container(d)["ports"][0].update(containerPort="8000"),
        'containerPort is "8000", expected a whole number',
    ),
    (
        lambda d: d["items"][0]["spec"]["template"]["spec"]["securityContext"].update(
            runAsUser=0
        ),
        "runAsNonRoot is not true: it may run as root",
    ),
    (
        lambda d: d["items"][0]["spec"]["selector"]["matchLabels"].update(tier="x"),
        "selector.matchLabels does not select its own template's labels",
    ),
    (
        lambda d: d["items"][1]["spec"]["selector"].update(tier="x"),
        "selector selects no pod of the",
    ),
    (
        lambda d: d["items"][1]["spec"]["ports"][1].update(targetPort="rpc"),
        "ports[1].targetPort is 'rpc': no container has it",
    ),
]


@pytest.mark.parametrize(
    ("change", "says"), KUBERNETES_EDITS, ids=[says[:40] for _, says in KUBERNETES_EDITS]
)
def test_a_manifest_that_does_not_fit_is_named(deployed, change: Any, says: str) -> None:
    found = edited(deployed("docker"), "kubernetes.json", change)
    assert any(line.startswith("kubernetes.json: ") and says in line for line in found), found


def test_manifest_edits_that_make_sense_pass(deployed) -> None:
    def change(document: Any) -> None:
        document["items"][0]["spec"]["replicas"] = 5
        container(document)["env"] = [{"name": "DLZOO_API_KEY", "valueFrom": {}}]
        document["items"][0]["spec"]["template"]["spec"]["tolerations"] = []
        document["items"].append({"apiVersion": "policy/v1", "kind": "PodDisruptionBudget"})

    assert edited(deployed("docker"), "kubernetes.json", change) == []


def test_the_probes_are_the_servers_own(deployed) -> None:
    document = json.loads((deployed("docker") / "kubernetes.json").read_text())
    probes = container(document)
    assert probes["livenessProbe"]["httpGet"] == {"path": "/v2/health/live", "port": "http"}
    assert probes["readinessProbe"]["httpGet"] == {"path": "/v2/health/ready", "port": "http"}
    assert (
        document["items"][0]["spec"]["template"]["spec"]["terminationGracePeriodSeconds"] > 31
    )


def test_the_dashboard_asks_for_what_the_server_counts(deployed, bundle: Bundle) -> None:
    import asyncio

    from dlzoo.runtime.serve.limits import ServerLimits
    from dlzoo.runtime.serve.metrics import metrics_text
    from dlzoo.runtime.serve.models.repository import Repository
    from dlzoo.runtime.serve.models.served_model import ModelSettings
    from dlzoo.runtime.serve.served import Served

    async def names() -> set[str]:
        repository = Repository([bundle.path], ModelSettings())
        await repository.load_all()
        text = metrics_text(await Served(repository, ServerLimits()).control.counts()).decode()
        await repository.close()
        return {line.split()[2] for line in text.splitlines() if line.startswith("# TYPE")}

    counted = asyncio.run(names())
    families = {re.sub(r"_(bucket|count|sum)$", "", metric) for metric in METRICS}
    assert families <= counted, families - counted
    asked = (deployed("docker") / "grafana-dashboard.json").read_text()
    assert {m for m in METRICS if m in asked} > {
        "dlzoo_requests_total",
        "dlzoo_queue_requests",
    }


DASHBOARD_EDITS: list[tuple[Callable[[Any], Any], str]] = [
    (lambda d: d["panels"][0].pop("gridPos"), "panels[0].gridPos is missing"),
    (lambda d: d["panels"][1].update(id=1), "panels[1].id is 1 for the second time"),
    (
        lambda d: d["panels"][0]["targets"][0].update(expr="rate(dlzoo_request_total[5m])"),
        "panels[0].targets[0].expr has dlzoo_request_total, which is not a metric of dlzoo serve",
    ),
    (
        lambda d: d["panels"][0]["targets"][0].update(expr="rate(dlzoo_requests_total[5m]"),
        "panels[0].targets[0].expr has brackets that do not match",
    ),
    (
        lambda d: d["templating"]["list"][1].update(query="other"),
        "templating model.query is 'other', the model is 'small'",
    ),
]


@pytest.mark.parametrize(
    ("change", "says"), DASHBOARD_EDITS, ids=[says[:40] for _, says in DASHBOARD_EDITS]
)
def test_a_dashboard_that_does_not_fit_is_named(deployed, change: Any, says: str) -> None:
    found = edited(deployed("docker"), "grafana-dashboard.json", change)
    assert f"grafana-dashboard.json: {says}" in found


def test_a_scrape_config_that_does_not_fit_is_named(deployed) -> None:
    def change(document: Any) -> None:
        (job,) = document["scrape_configs"]
        job["scrape_interval"] = "15 seconds"
        job["static_configs"][0]["targets"] = ["localhost"]

    assert edited(deployed("docker"), "prometheus.json", change) == [
        'prometheus.json: scrape_configs[0].static_configs[0].targets[0] is "localhost", expected '
        "HOST:PORT",
        'prometheus.json: scrape_configs[0].scrape_interval is "15 seconds", expected a duration '
        "such as 15s",
    ]
