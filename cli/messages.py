"""Messages of the library, which name Python arguments, in the words of the command line."""

from __future__ import annotations

import ast
import re
import shlex
from typing import Any

#: A Python name in backticks, or one with a value: `` `image_size` ``, `` `providers=("cpu",)` ``.
_ARGUMENT = re.compile(r"`([A-Za-z_][\w.]*)(?:=([^`]+))?`")
#: Arguments whose option has another name than they have, most of them because an option that is
#: repeated is in the singular.
_OPTION_OF = {
    "inputs": "input",
    "lowerings": "lowering",
    "optimizations": "optimization",
    "providers": "provider",
    "timeout_s": "timeout",
    "max_bytes": "max_memory",
    "num_workers": "workers",
    "api_key": "api_key_file",
    "k": "top",
}


def in_flags(message: str, command: Any | None) -> str:
    """Write each argument that a message names in backticks as the command's option.

    `` `image_size` `` becomes ``--image-size``, `` `batch=8` `` becomes ``--batch 8`` and an
    argument without a flag its name in the help (``BUNDLE``). Other words lose their backticks.

    Args:
        message: of a :class:`~dlzoo.errors.DlzooError`.
        command: the click command that ran; None where none was found.
    """
    shown = {} if command is None else _shown_names(command)

    def translate(match: re.Match[str]) -> str:
        name, value = match.groups()
        flag = shown.get(name) or shown.get(_OPTION_OF.get(name, ""))
        if flag is None:
            return match[0].strip("`")
        return flag if value is None else " ".join(_with_value(flag, value))

    return _ARGUMENT.sub(translate, message)


def _shown_names(command: Any) -> dict[str, str]:
    """How the command's help writes each of its parameters, by the parameter's Python name."""
    return {
        parameter.name.rstrip("_"): (
            max(parameter.opts, key=len)
            if parameter.param_type_name == "option"
            else parameter.metavar or parameter.name.upper()
        )
        for parameter in command.params
    }


def _with_value(flag: str, text: str) -> list[str]:
    """The words of an option with a value that is written in Python."""
    try:
        value = ast.literal_eval(text)
    except (SyntaxError, ValueError):
        return [flag, text]  # a placeholder, such as N
    if value is True:
        return [flag]
    if isinstance(value, dict):
        return [word for key, one in value.items() for word in (flag, f"{key}={one}")]
    if isinstance(value, list | tuple):
        if all(isinstance(one, str) for one in value):  # an option that is repeated
            return [word for one in value for word in (flag, one)]
        return [flag, ",".join(str(one) for one in value)]
    return [flag, shlex.quote(str(value))]
