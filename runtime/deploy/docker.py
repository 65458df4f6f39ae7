"""A container image of ``dlzoo serve``, its Kubernetes manifests and its monitoring.

Dockerfile  requirements.lock   docker build -t net .
models/net/1/                   the bundle, proved again whenever the server starts
kubernetes.json                 kubectl apply -f: a Deployment with probes, and a Service
prometheus.json  grafana-dashboard.json
"""

from __future__ import annotations

import shutil
import sys
from pathlib import Path
from string import Template

from dlzoo.errors import ArgumentError
from dlzoo.runtime.bundle.bundle import Bundle
from dlzoo.runtime.deploy.deployed_model import DeployedModel
from dlzoo.runtime.deploy.dockerfile_check import dockerfile_problems, lock_problems
from dlzoo.runtime.deploy.grafana import dashboard, dashboard_problems
from dlzoo.runtime.deploy.image_lock import image_lock, lock_text
from dlzoo.runtime.deploy.kubernetes import manifest_problems, manifests
from dlzoo.runtime.deploy.options import DeployOptions
from dlzoo.runtime.deploy.problem import Problem
from dlzoo.runtime.deploy.prometheus import scrape_config, scrape_problems
from dlzoo.runtime.deploy.structure import write_json
from dlzoo.version import __version__

DOCKERFILE, LOCK = "Dockerfile", "requirements.lock"
KUBERNETES, DASHBOARD, PROMETHEUS = (
    "kubernetes.json",
    "grafana-dashboard.json",
    "prometheus.json",
)


def write(folder: Path, model: DeployedModel, options: DeployOptions) -> None:
    """Fill ``folder`` with the image's context and the manifests.

    Raises:
        ArgumentError: dlzoo does not serve on that provider, or the wheel has another version.
        ExportError: this environment lacks the ONNX Runtime that the image needs.
        InstallationError: a package of ``dlzoo[serve]`` is missing.
    """
    if options.provider not in ("cpu", "cuda"):
        raise ArgumentError(
            f"`provider` is {options.provider!r}, expected cpu or cuda for an image of dlzoo serve."
        )
    copy_bundle(model.file.parent, folder / "models" / model.name / "1")
    (folder / LOCK).write_text(lock_text(image_lock(options.provider)), encoding="utf-8")
    install = f"RUN /opt/dlzoo/bin/pip install --no-cache-dir --no-deps dlzoo=={__version__}"
    if options.wheel is not None:
        _copy_wheel(options.wheel, folder / "wheels")
        name = options.wheel.name
        install = (
            f"COPY wheels/{name} /build/\n"
            f"RUN /opt/dlzoo/bin/pip install --no-cache-dir --no-deps /build/{name}"
        )
    template = Template(Path(__file__).with_name("Dockerfile.in").read_text(encoding="utf-8"))
    text = template.substitute(
        python=f"{sys.version_info[0]}.{sys.version_info[1]}",
        install=install,
        provider=options.provider,
        max_batch=str(model.batch_limit(options.max_batch_size) or 1),
    )
    (folder / DOCKERFILE).write_text(text, encoding="utf-8")
    write_json(folder / KUBERNETES, manifests(model.name, uses_gpu=options.provider == "cuda"))
    write_json(folder / DASHBOARD, dashboard(model.name))
    write_json(folder / PROMETHEUS, scrape_config())


def copy_bundle(source: Path, target: Path) -> None:
    """Copy a bundle: the files that its manifest lists, and its reports."""
    manifest = Bundle.open(source).manifest
    about = ("manifest.json", "parity.json", "MODEL_CARD.md", "report.html")
    for name in (*manifest.files, *(name for name in about if (source / name).is_file())):
        (target / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(source / name, target / name)


def _copy_wheel(wheel: Path, folder: Path) -> None:
    expected = f"dlzoo-{__version__}-py3-none-any.whl"
    if wheel.name != expected or not wheel.is_file():
        raise ArgumentError(
            f"`wheel` is {str(wheel)!r}, expected a file named {expected}. Make one: make wheel"
        )
    folder.mkdir()
    shutil.copyfile(wheel, folder / wheel.name)


def check(folder: Path, model: DeployedModel) -> list[Problem]:
    """Find every problem in the image's context and in the manifests."""
    return [
        *dockerfile_problems(folder, DOCKERFILE),
        *lock_problems(folder, LOCK),
        *manifest_problems(folder, KUBERNETES),
        *dashboard_problems(folder, DASHBOARD, model.name),
        *scrape_problems(folder, PROMETHEUS),
    ]
