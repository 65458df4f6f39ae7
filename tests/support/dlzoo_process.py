"""Run ``dlzoo`` as a user does: a process of its own."""

import os
import subprocess
import sys
from pathlib import Path


def run_dlzoo(
    *arguments: str | Path, cwd: Path | None = None, **environment: str
) -> subprocess.CompletedProcess[str]:
    """Run a command line to its end and catch what it says."""
    return subprocess.run(
        [sys.executable, "-m", "dlzoo", *map(str, arguments)],
        capture_output=True,
        text=True,
        cwd=cwd,
        env={**os.environ, "COLUMNS": "80", **environment},
        timeout=300,
    )
