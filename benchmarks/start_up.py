"""dlzoo --help against an empty Typer app.

python benchmarks/start_up.py [--runs 15]
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from pathlib import Path

from measure import describe_machine, measure_alternately

EMPTY_APP = """
import typer

app = typer.Typer()


@app.command()
def main() -> None:
    pass


app()
"""


def main() -> None:
    """Print both start-up times and their ratio."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runs", type=int, default=15)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        app = Path(folder, "app.py")
        app.write_text(EMPTY_APP)
        commands = {
            "empty Typer app --help": (sys.executable, str(app), "--help"),
            "dlzoo --help": (str(Path(sys.executable).parent / "dlzoo"), "--help"),
        }
        results = measure_alternately(commands, num_runs=arguments.runs)
    print(describe_machine())
    print(f"median of {arguments.runs} runs, seconds")
    for name, result in results.items():
        print(f"{name:<28}{result.seconds:>8.3f}")
    empty, ours = results.values()
    print(f"{'ratio':<28}{ours.seconds / empty.seconds:>8.2f}")


if __name__ == "__main__":
    main()
