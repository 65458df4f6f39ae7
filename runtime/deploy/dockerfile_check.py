"""Checks of a Dockerfile and its lock: known instructions, what they copy, and as which user it runs.

Source: https://docs.docker.com/reference/dockerfile/
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from dlzoo.runtime.deploy.image_lock import FORBIDDEN
from dlzoo.runtime.deploy.problem import Problem

_INSTRUCTIONS = frozenset(
    [
        "ADD",
        "ARG",
        "CMD",
        "COPY",
        "ENTRYPOINT",
        "ENV",
        "EXPOSE",
        "FROM",
        "HEALTHCHECK",
        "LABEL",
        "MAINTAINER",
        "ONBUILD",
        "RUN",
        "SHELL",
        "STOPSIGNAL",
        "USER",
        "VOLUME",
        "WORKDIR",
    ]
)
_PIN = re.compile(r"[a-z0-9][a-z0-9._-]*==[A-Za-z0-9][A-Za-z0-9.!+_-]*")


@dataclass(frozen=True)
class Instruction:
    """One instruction, its continuation lines joined."""

    line: int
    name: str
    arguments: str


def dockerfile_problems(folder: Path, file: str) -> Iterator[Problem]:
    """Find every problem in a Dockerfile that shows without building it."""
    try:
        instructions = list(_instructions((folder / file).read_text(encoding="utf-8")))
    except (OSError, UnicodeDecodeError) as error:
        yield Problem(file, "", f"cannot be read: {error}")
        return
    names = [instruction.name for instruction in instructions]
    for instruction in instructions:
        place = f"line {instruction.line}, {instruction.name}"
        if instruction.name not in _INSTRUCTIONS:
            yield Problem(file, place, "is not an instruction of Docker")
        elif not instruction.arguments:
            yield Problem(file, place, "has no arguments")
        elif instruction.name in ("COPY", "ADD"):
            yield from _copy_problems(instruction, folder, file)
        elif instruction.name in ("ENTRYPOINT", "CMD"):
            yield from _command_problems(instruction, file)
        elif instruction.name == "RUN":
            installs = re.search(r"\bpip install\b", instruction.arguments)
            if installs and "--no-deps" not in instruction.arguments:
                yield Problem(
                    file, place, "runs pip without --no-deps: that would install PyTorch"
                )
    if not names or next((n for n in names if n != "ARG"), "") != "FROM":
        yield Problem(file, "FROM", "is missing, or not the first instruction")
        return
    last_stage = instructions[len(names) - 1 - names[::-1].index("FROM") :]
    users = [i.arguments for i in last_stage if i.name == "USER"]
    if not users:
        yield Problem(
            file, "USER", "is missing in the last stage, so the server would run as root"
        )
    elif users[-1].split(":")[0] in ("root", "0"):
        yield Problem(file, "USER", f"is {users[-1]!r}, expected a user that is not root")
    if "ENTRYPOINT" not in [i.name for i in last_stage]:
        yield Problem(file, "ENTRYPOINT", "is missing in the last stage")
    yield from _port_problems(last_stage, file)


def lock_problems(folder: Path, file: str) -> Iterator[Problem]:
    """Find every line of a lock that pins no version, or names a package that serving does not need."""
    try:
        lines = (folder / file).read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        yield Problem(file, "", f"cannot be read: {error}")
        return
    names = []
    for number, line in enumerate(lines, start=1):
        text = line.split(" #")[0].strip()
        if not text or text.startswith("#"):
            continue
        if not _PIN.fullmatch(text):
            yield Problem(file, f"line {number}", f"is {text[:60]!r}, expected NAME==VERSION")
            continue
        names.append(text.split("==")[0])
        if names[-1] in FORBIDDEN:
            yield Problem(file, f"line {number}", f"is {text!r}, which serving does not need")
    runtimes = [name for name in names if name.startswith("onnxruntime")]
    if len(runtimes) != 1:
        yield Problem(
            file, "", f"has {len(runtimes)} packages of ONNX Runtime, expected exactly one"
        )


def _instructions(text: str) -> Iterator[Instruction]:
    start = 0
    parts: list[str] = []
    for number, line in enumerate(text.splitlines(), start=1):
        stripped = line.strip()
        if stripped.startswith("#") or (not stripped and not parts):
            continue
        start = start if parts else number
        parts.append(stripped.removesuffix("\\"))
        if stripped.endswith("\\"):
            continue
        name, _, arguments = " ".join(parts).strip().partition(" ")
        yield Instruction(start, name.upper(), arguments.strip())
        parts = []
    if parts:
        name, _, arguments = " ".join(parts).strip().partition(" ")
        yield Instruction(start, name.upper(), arguments.strip())


def _copy_problems(instruction: Instruction, folder: Path, file: str) -> Iterator[Problem]:
    words = [w for w in instruction.arguments.split() if not w.startswith("--")]
    place = f"line {instruction.line}, {instruction.name}"
    if len(words) < 2:
        yield Problem(file, place, "needs a source and a target")
    if "--from=" in instruction.arguments:
        return
    for source in words[:-1]:
        if source.startswith("/") or ".." in source.split("/"):
            yield Problem(file, place, f"copies {source!r}, which lies outside the folder")
        elif not any(folder.glob(source.rstrip("/"))):
            yield Problem(file, place, f"copies {source!r}, which is not here")


def _command_problems(instruction: Instruction, file: str) -> Iterator[Problem]:
    """Accept only the exec form: a shell in between would not pass SIGTERM on."""
    try:
        words = json.loads(instruction.arguments)
    except ValueError:
        words = None
    if not isinstance(words, list) or not all(isinstance(word, str) for word in words):
        yield Problem(
            file,
            f"line {instruction.line}, {instruction.name}",
            'is not a JSON list of texts, such as ["dlzoo", "serve"]',
        )


def _port_problems(instructions: list[Instruction], file: str) -> Iterator[Problem]:
    exposed = {
        port.split("/")[0]
        for i in instructions
        if i.name == "EXPOSE"
        for port in i.arguments.split()
    }
    commands = " ".join(i.arguments for i in instructions if i.name in ("ENTRYPOINT", "CMD"))
    for host, port in re.findall(r'"([\w.\[\]:]*):(\d+)"', commands):
        if port not in exposed:
            yield Problem(file, "EXPOSE", f"lacks {port}, which the server listens on")
        if host in ("127.0.0.1", "localhost", "[::1]"):
            yield Problem(
                file, "ENTRYPOINT", f"listens on {host}, which nothing outside can reach"
            )
