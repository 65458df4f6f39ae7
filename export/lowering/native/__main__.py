"""``python -m dlzoo.export.lowering.native``: build the kernels on this machine."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from dlzoo.errors import DlzooError
from dlzoo.export.lowering.native.build import build_library
from dlzoo.runtime.session.native_library import (
    BUILD_COMMAND,
    NATIVE_LIBRARY_VARIABLE,
    packaged_library_path,
)


def main() -> int:
    """Build the library and say where it is."""
    parser = argparse.ArgumentParser(
        prog=BUILD_COMMAND,
        description="Build the native kernels of domain dlzoo with this machine's C++ compiler.",
    )
    parser.add_argument(
        "--output",
        type=Path,
        help=f"the file to write; name it to dlzoo with {NATIVE_LIBRARY_VARIABLE}=FILE. "
        "[beside the sources, where dlzoo finds it]",
    )
    arguments = parser.parse_args()
    try:
        built = build_library(arguments.output)
    except DlzooError as error:
        print(f"dlzoo: {error}", file=sys.stderr)
        return error.exit_code
    hint = ""
    if built != packaged_library_path():
        hint = f" Use it with {NATIVE_LIBRARY_VARIABLE}={built} or --native-library {built}."
    print(f"Built {built} ({built.stat().st_size:,} bytes).{hint}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
