"""What tracing a network must not leave behind: modes, random streams, chatter."""

from __future__ import annotations

import logging
import sys
import threading
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from typing import Any, TextIO, cast

#: Loggers of the exporter and what it stands on.
_CHATTY = ("torch", "onnxscript", "onnx_ir")
#: What they say about every network, or about themselves: nothing that a user can act on.
_SMALL_TALK = ("torchvision is not installed",)


class _Collector(logging.Handler):
    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self.messages: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.messages.append(record.getMessage())


class _OtherThreadsOnly:
    """A text stream that keeps what this thread prints, and lets a progress bar's thread write."""

    def __init__(self, stream: TextIO | None) -> None:
        self._stream = stream
        self._thread = threading.get_ident()
        self.kept: list[str] = []

    def write(self, text: str) -> int:
        if self._stream is not None and threading.get_ident() != self._thread:
            return self._stream.write(text)
        self.kept.append(text)
        return len(text)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)


@contextmanager
def without_chatter(notes: list[str]) -> Iterator[None]:
    """Keep what the exporter logs, warns and prints off the terminal; what may matter is noted.

    Deprecations inside the exporter are dropped: they concern its authors.
    """
    collector = _Collector()
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
        logger.handlers, logger.propagate = [collector], False
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
        texts = collector.messages
        texts += [
            str(w.message)
            for w in warned
            if not issubclass(w.category, (DeprecationWarning, FutureWarning))
        ]
        printed = "".join((*out.kept, *err.kept))
        texts += [f"printed: {line}" for line in printed.splitlines()]
        lines = [next(iter(text.strip().splitlines()), "") for text in texts]
        known = [line for line in lines if line and not line.startswith(_SMALL_TALK)]
        notes += dict.fromkeys(known)
