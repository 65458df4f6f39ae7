"""How a network is called by input name, and its answers by output name."""

from __future__ import annotations

import collections.abc
import dis
import functools
import inspect
import types
import typing
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from inspect import Parameter
from itertools import pairwise
from typing import Any

from torch import Tensor, nn
from torch.utils import _pytree

from dlzoo.errors import ExportError

_BY_NAME = (Parameter.POSITIONAL_OR_KEYWORD, Parameter.KEYWORD_ONLY)
_BY_POSITION = (Parameter.POSITIONAL_ONLY, Parameter.POSITIONAL_OR_KEYWORD)


def bind_inputs(
    module: nn.Module, inputs: Mapping[str, Any]
) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """Arguments for ``module(*args, **kwargs)``.

    An input that is named like a parameter of ``forward`` is passed to it; the others fill the
    parameters that are left, in order. What is then left goes to ``*args`` or ``**kwargs``. A
    parameter that takes a list, tuple or dictionary of tensors gets the inputs that are named after
    it, ``features_0`` and ``features_1`` or ``batch_image`` and ``batch_mask``, or, if it is the
    only one without an input, all that no other parameter takes. What ``torch.export`` traced is
    called as it was then, and in no other way.
    """
    traced_call = getattr(module, "_in_spec", None)
    if isinstance(traced_call, _pytree.TreeSpec):
        args, kwargs = _pytree.tree_unflatten(list(inputs.values()), traced_call)
        return tuple(args), dict(kwargs)
    return _Binding(module, inputs).arguments()


def input_order(module: nn.Module, names: Iterable[str]) -> list[str]:
    """The names of the inputs in the order in which ``torch.export`` flattens them."""
    bound = bind_inputs(module, {name: name for name in names})
    return [leaf for leaf in _pytree.tree_leaves(bound) if isinstance(leaf, str)]


def bind_shapes(module: nn.Module, shapes: Mapping[str, Any]) -> dict[str, Any]:
    """A value for each input, nested as ``torch.export`` wants its ``dynamic_shapes``."""
    args, kwargs = bind_inputs(module, shapes)
    return dict(inspect.signature(module.forward).bind(*args, **kwargs).arguments)


@contextmanager
def keywords_named(module: nn.Module, names: Iterable[str]) -> Iterator[None]:
    """While active, the signature of a forward has the inputs that go to ``**kwargs`` by name.

    torch.export (2.13) finds no place for the shapes of the others.
    """
    extra = _Binding(module, {name: name for name in names}).extra
    if not extra or hasattr(module, "_in_spec"):
        yield
        return
    original = module.forward

    @functools.wraps(original)
    def forward(*args: Any, **kwargs: Any) -> Any:
        return original(*args, **kwargs)

    signature = inspect.signature(original)
    own = [p for p in signature.parameters.values() if p.kind is not Parameter.VAR_KEYWORD]
    named = [Parameter(name, Parameter.KEYWORD_ONLY) for name in extra]
    forward.__signature__ = signature.replace(parameters=[*own, *named])  # type: ignore[attr-defined]
    replaced = module.__dict__.get("forward")
    module.__dict__["forward"] = forward
    try:
        yield
    finally:
        if replaced is None:
            del module.__dict__["forward"]
        else:
            module.__dict__["forward"] = replaced


def call_module(
    module: nn.Module, inputs: Mapping[str, Tensor], output_names: Sequence[str]
) -> dict[str, Tensor]:
    """Run a network and name its tensors, in the order in which ``torch.onnx`` flattens them.

    The network is given copies of the inputs: a forward may write into them.

    Raises:
        ExportError: it gives another number of tensors than there are names.
    """
    args, kwargs = bind_inputs(module, copies_of(inputs))
    leaves = _pytree.tree_leaves(module(*args, **kwargs))
    tensors = [leaf for leaf in leaves if isinstance(leaf, Tensor)]
    stored = {id(t) for t in (*module.parameters(), *module.buffers())}
    # What is given out as it is stored would change when the network is put back.
    tensors = [
        t.clone() if id(t) in stored or (t._is_view() and id(t._base) in stored) else t
        for t in tensors
    ]
    if len(tensors) != len(output_names):
        raise ExportError(
            f"{type(module).__name__} gives {len(tensors)} tensors, but {len(output_names)} "
            f"outputs are named ({', '.join(output_names)}). Name each of them once."
        )
    return dict(zip(output_names, tensors, strict=True))


def copies_of(inputs: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The inputs in memory of their own, laid out as they are."""
    return {name: x.clone() for name, x in inputs.items()}


class _Binding:
    """Which parameter of a ``forward`` gets which inputs."""

    def __init__(self, module: nn.Module, inputs: Mapping[str, Any]) -> None:
        self._forward = module.forward
        self._parameters = inspect.signature(module.forward).parameters
        self._hints = _type_hints(module)
        self._rest = dict(inputs)
        self._values: dict[str, Any] = {}
        self._surplus: list[Any] = []
        self.extra: dict[str, Any] = {}
        self._take_named()
        self._take_by_prefix()
        self._take_in_order()

    def _take_named(self) -> None:
        for name, parameter in self._parameters.items():
            if parameter.kind in _BY_NAME and name in self._rest:
                value = self._rest.pop(name)
                kind = _container_of(self._hints.get(name))
                self._values[name] = value if kind is None else _contain(kind, {name: value})

    def _take_by_prefix(self) -> None:
        """``features_0`` and ``features_1``, where a parameter is called ``features``."""
        for name, parameter in self._parameters.items():
            prefix = f"{name}_"
            keys = [key for key in self._rest if key.startswith(prefix)]
            is_free = name not in self._values and parameter.default is Parameter.empty
            if parameter.kind not in (*_BY_NAME, Parameter.POSITIONAL_ONLY) or not is_free:
                continue
            inner = {key.removeprefix(prefix): self._rest[key] for key in keys}
            is_list = list(inner) == [str(number) for number in range(len(inner))]
            kind = _container_of(self._hints.get(name))
            if keys and (kind is not None or is_list or len(keys) > 1):
                self._values[name] = _contain(kind or (list if is_list else dict), inner)
                for key in keys:
                    del self._rest[key]

    def _take_in_order(self) -> None:
        free = [
            parameter
            for name, parameter in self._parameters.items()
            if parameter.kind in (*_BY_POSITION, Parameter.KEYWORD_ONLY)
            and name not in self._values
        ]
        required = [parameter for parameter in free if parameter.default is Parameter.empty]
        has_more = any(
            parameter.kind in (Parameter.VAR_POSITIONAL, Parameter.VAR_KEYWORD)
            for parameter in self._parameters.values()
        )
        takers = required or free
        if len(takers) == 1 and self._rest and not has_more:
            name = takers[0].name
            kind = _container_of(self._hints.get(name))
            if kind is None and len(self._rest) > len(free):
                kind = _container_that_is_read(self._forward, name)
            if kind is not None:
                self._values[name] = _contain(kind, self._rest)
                self._rest = {}
                return
        for parameter in required if has_more else free:
            if self._rest:
                name = next(iter(self._rest))
                self._values[parameter.name] = self._rest.pop(name)
        for parameter in self._parameters.values():
            if parameter.kind is Parameter.VAR_POSITIONAL:
                self._surplus, self._rest = list(self._rest.values()), {}
            elif parameter.kind is Parameter.VAR_KEYWORD:
                self.extra, self._rest = self._rest, {}
        self._surplus += self._rest.values()  # too many: PyTorch itself will say so

    def arguments(self) -> tuple[tuple[Any, ...], dict[str, Any]]:
        """Positional ones as far as they must be; the others by name."""
        names = list(self._parameters)
        last = max(
            (
                number
                for number, parameter in enumerate(self._parameters.values())
                if (
                    parameter.kind is Parameter.POSITIONAL_ONLY
                    and parameter.name in self._values
                )
                or (parameter.kind in _BY_POSITION and self._surplus)
            ),
            default=-1,
        )
        args = [
            self._values[name] if name in self._values else self._parameters[name].default
            for name in names[: last + 1]
        ]
        kwargs = {
            name: self._values[name] for name in names[last + 1 :] if name in self._values
        }
        return (*args, *self._surplus), {**kwargs, **self.extra}


def _type_hints(module: nn.Module) -> dict[str, Any]:
    try:
        return typing.get_type_hints(module.forward)
    except (NameError, TypeError, AttributeError):  # names that only a type checker imports
        return {
            name: parameter.annotation
            for name, parameter in inspect.signature(module.forward).parameters.items()
        }


def _container_of(hint: Any) -> type | None:
    """``list``, ``tuple`` or ``dict`` where an annotation says one; None where it does not."""
    if isinstance(hint, str):
        hint = {"dict": dict, "list": list, "tuple": tuple}.get(
            hint.split("[")[0].rpartition(".")[2].lower()
        )
    origin = typing.get_origin(hint) or hint
    if origin in (typing.Union, types.UnionType):
        kinds = [_container_of(member) for member in typing.get_args(hint)]
        is_tensor_too = Tensor in typing.get_args(hint)
        return None if is_tensor_too else next(filter(None, kinds), None)
    if not isinstance(origin, type) or issubclass(origin, (Tensor, str)):
        return None
    if hasattr(origin, "_fields") and issubclass(origin, tuple):
        return origin
    for kind, general in (
        (dict, collections.abc.Mapping),
        (tuple, tuple),
        (list, collections.abc.Sequence),
        (list, collections.abc.Iterable),
    ):
        if issubclass(origin, general):
            return kind
    return None


def _container_that_is_read(forward: Any, name: str) -> type:
    """``list`` where the code of a forward reads a parameter by position, else ``dict``."""
    code = getattr(inspect.unwrap(forward), "__code__", None)
    steps = [] if code is None else list(dis.get_instructions(code))
    for step, following in pairwise(steps):
        if step.argval == name and step.opname.startswith("LOAD_FAST"):
            is_number = following.opname.startswith("LOAD") and isinstance(
                following.argval, int
            )
            if is_number or following.opname in ("UNPACK_SEQUENCE", "GET_ITER"):
                return list
    return dict


def _contain(kind: type, values: Mapping[str, Any]) -> Any:
    if kind is dict:
        return dict(values)
    if hasattr(kind, "_fields"):
        return kind(*values.values())
    return kind(values.values())
