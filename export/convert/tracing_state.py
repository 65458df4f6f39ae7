"""What tracing a network must not leave on the terminal, and what of it the user should read.

A note is for whoever wrote the network, so only what the network's own code says is one: its
warnings, what it logs and what it prints. What torch, onnxscript and their like say about
themselves is dropped: nobody can act on it.
"""

from __future__ import annotations

import logging
import os
import sys
import sysconfig
import threading
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from pathlib import Path
from types import FrameType
from typing import Any, TextIO, cast

import onnx
import onnx_ir
import onnxscript
import sympy
import torch

#: Loggers of the exporter and what it stands on.
_CHATTY = ("torch", "onnxscript", "onnx_ir")
#: Where their code lies, what they calculate with, and ours.
_EXPORTERS_FOLDERS = tuple(
    f"{folder}{os.sep}"
    for folder in (
        Path(__file__).parents[1],
        *(Path(str(p.__file__)).parent for p in (torch, onnxscript, onnx_ir, onnx, sympy)),
    )
)
_STANDARD_LIBRARY = f"{sysconfig.get_paths()['stdlib']}{os.sep}"
#: A message passes through these on its way to the stream.
_CARRIERS = (logging.__file__, warnings.__file__, __file__)


class _OtherThreadsOnly:
    """A text stream that keeps what this thread prints, and lets a progress bar's thread write.

    ``kept`` is what the network's own code printed.
    """

    def __init__(self, stream: TextIO | None) -> None:
        self._stream = stream
        self._thread = threading.get_ident()
        self.kept: list[str] = []

    def write(self, text: str) -> int:
        if self._stream is not None and threading.get_ident() != self._thread:
            return self._stream.write(text)
        if is_networks_own(_writer(sys._getframe(1))):
            self.kept.append(text)
        return len(text)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)


def _writer(frame: FrameType | None) -> str:
    """The file whose code wrote something."""
    while frame is not None and frame.f_code.co_filename in _CARRIERS:
        frame = frame.f_back
    return frame.f_code.co_filename if frame is not None else ""


def is_networks_own(file: str) -> bool:
    """Whether a file belongs to the network, or to a package that its author chose."""
    if file.startswith(_STANDARD_LIBRARY) and "site-packages" not in file:
        return False
    return not file.startswith(_EXPORTERS_FOLDERS)


@contextmanager
def without_chatter(notes: list[str]) -> Iterator[None]:
    """Keep what is logged, warned and printed off the terminal; what the network says is noted.

    Its deprecation warnings are dropped: they are for the authors of what it calls.
    """
    silent = logging.NullHandler()
    loggers = [
        logger
        for name, logger in logging.root.manager.loggerDict.items()
        if isinstance(logger, logging.Logger)
        and name.split(".")[0] in _CHATTY
        and (logger.handlers or name in _CHATTY)
    ]
    saved = [(logger, logger.handlers, logger.propagate) for logger in loggers]
    out, err = _OtherThreadsOnly(sys.stdout), _OtherThreadsOnly(sys.stderr)
    for logger in loggers:
        logger.handlers, logger.propagate = [silent], False
    try:
        with (
            warnings.catch_warnings(record=True) as warned,
            redirect_stdout(cast(TextIO, out)),
            redirect_stderr(cast(TextIO, err)),
        ):
            warnings.simplefilter("always")
            yield
    finally:
        for logger, handlers, propagate in saved:
            logger.handlers, logger.propagate = handlers, propagate
        texts = [
            str(warning.message)
            for warning in warned
            if not issubclass(warning.category, (DeprecationWarning, FutureWarning))
            and is_networks_own(warning.filename)
        ]
        printed = "".join((*out.kept, *err.kept))
        texts += [f"printed: {line}" for line in printed.splitlines()]
        lines = [next(iter(text.strip().splitlines()), "") for text in texts]
        notes += dict.fromkeys(line for line in lines if line)
