"""What a network's code writes while it runs: found, named, and put back afterwards."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor, UntypedStorage, nn
from torch.utils._python_dispatch import TorchDispatchMode

from dlzoo.zoo.module_wrappers import wrappers_taken_off

_NARROW = (torch.float32, torch.float16, torch.bfloat16)
#: What every module has for its hooks and modes: no network's own code keeps state there.
_OF_EVERY_MODULE = frozenset(vars(nn.Module()))
_PLAIN = (int, float, complex, str, bytes, bool)

Kind = Literal["parameter", "buffer", "attribute"]
#: Where a module keeps what is registered with it.
_TABLES: dict[str, Kind] = {
    "_parameters": "parameter",
    "_buffers": "buffer",
    "_modules": "attribute",
}


@dataclass
class Changes:
    """What a run of a network changed, filled in when the run is over: names, without repeats."""

    parameters: list[str] = field(default_factory=list)
    buffers: list[str] = field(default_factory=list)
    attributes: list[str] = field(default_factory=list)

    def __bool__(self) -> bool:
        return bool(self.parameters or self.buffers or self.attributes)

    def add(self, kind: Kind, name: str) -> None:
        """Enter one name."""
        names = {
            "parameter": self.parameters,
            "buffer": self.buffers,
            "attribute": self.attributes,
        }[kind]
        if name not in names:
            names.append(name)


# -- walking over a network's state --------------------------------------------------------------


@dataclass(frozen=True)
class _Slot:
    """A container or object that a network keeps, how to refill it, and what was in it."""

    container: Any
    content: Any
    name: str
    kind: Kind = "attribute"

    def refill(self) -> None:
        if isinstance(self.container, list):
            self.container[:] = self.content
        elif isinstance(self.container, np.ndarray):
            self.container[...] = self.content
        elif isinstance(self.container, deque):
            self.container.clear()
            self.container.extend(self.content)
        else:
            self.container.clear()
            self.container.update(self.content)

    def changed_names(self) -> Iterator[str]:
        """The entries that hold another value than before; what was empty before may be filled.

        A cache that is filled by the first run does not change what later runs compute.
        """
        if isinstance(self.container, dict):
            for key, before in self.content.items():
                after = self.container.get(key)
                is_own = before is not None and key not in _OF_EVERY_MODULE
                # The older spectral_norm and pruning compute ``weight`` from ``weight_orig``.
                is_own &= f"{key}_orig" not in self.content.get("_parameters", ())
                if is_own and not _is_same(before, after):
                    yield f"{self.name}.{key}" if self.name else str(key)
        elif isinstance(self.container, np.ndarray):
            if not np.array_equal(self.container, self.content, equal_nan=False):
                yield self.name
        elif len(self.container) != len(self.content) or (
            isinstance(self.container, (list, deque))
            and not all(map(_is_same, self.container, self.content))
        ):
            yield self.name


def _is_same(before: Any, after: Any) -> bool:
    if isinstance(before, _PLAIN) and isinstance(after, _PLAIN):
        return type(before) is type(after) and (before == after or before != before)
    if isinstance(before, Tensor) and isinstance(after, Tensor) and before is not after:
        # Computed anew from what is stored, as by the older weight_norm and by pruning.
        is_alike = before.shape == after.shape and before.dtype == after.dtype
        return is_alike and torch.equal(before, after)
    return before is after


@dataclass(frozen=True)
class Place:
    """Where a network holds a tensor: in a table of a module, an attribute or a container."""

    kind: Kind
    name: str
    container: Any = field(compare=False)
    key: Any = field(compare=False)

    def get(self) -> Tensor:
        """The tensor that is there now."""
        found: Tensor = self.container[self.key]
        return found

    def put(self, tensor: Tensor) -> None:
        """Put another tensor there; a tuple keeps its own."""
        if not isinstance(self.container, tuple):
            self.container[self.key] = tensor


def tensor_places(module: nn.Module) -> list[Place]:
    """Every place where a network holds a tensor, parameters and buffers among them."""
    return _State(module).places


class _State:
    """Every tensor that a network holds, and every container that it could write to."""

    def __init__(self, module: nn.Module) -> None:
        self.slots: list[_Slot] = []
        #: Each tensor once; each place of one.
        self.tensors: list[tuple[Kind, str, Tensor]] = []
        self.places: list[Place] = []
        self._seen: set[int] = set()
        for path, part in module.named_modules():
            prefix = f"{path}." if path else ""
            if isinstance(part, torch.jit.ScriptModule):
                self._add_compiled(part, prefix)
                continue
            own = vars(part)
            self.slots.append(_Slot(own, dict(own), path))
            for table_name, kind in _TABLES.items():
                table = own[table_name]
                self._seen.add(id(table))
                self.slots.append(_Slot(table, dict(table), path, kind))
                for name, value in table.items():
                    if isinstance(value, Tensor):
                        self._add_tensor(Place(kind, f"{prefix}{name}", table, name), value)
            for name, value in own.items():
                if name not in _OF_EVERY_MODULE:
                    self._add(own, name, value, f"{prefix}{name}")

    def _add_compiled(self, part: nn.Module, prefix: str) -> None:
        """The tensors of TorchScript: where it keeps them is not Python's."""
        for name, parameter in part.named_parameters(recurse=False):
            self._add_tensor(Place("parameter", f"{prefix}{name}", (parameter,), 0), parameter)
        for name, buffer in part.named_buffers(recurse=False):
            self._add_tensor(Place("buffer", f"{prefix}{name}", (buffer,), 0), buffer)

    def _add_tensor(self, place: Place, tensor: Tensor) -> None:
        self.places.append(place)
        if id(tensor) not in self._seen:
            self._seen.add(id(tensor))
            self.tensors.append((place.kind, place.name, tensor))

    def _add(self, home: Any, key: Any, value: Any, name: str) -> None:
        if isinstance(value, Tensor):
            self._add_tensor(Place("attribute", name, home, key), value)
            return
        if isinstance(value, (*_PLAIN, nn.Module, type)) or value is None:
            return
        if id(value) in self._seen:
            return
        self._seen.add(id(value))
        if isinstance(value, np.ndarray):
            self.slots.append(_Slot(value, value.copy(), name))
        elif isinstance(value, dict):
            self.slots.append(_Slot(value, dict(value), name))
            for inner, item in value.items():
                self._add(value, inner, item, f"{name}.{inner}")
        elif isinstance(value, (list, tuple, deque)):
            if not isinstance(value, tuple):
                self.slots.append(_Slot(value, list(value), name))
            for number, item in enumerate(value):
                self._add(value, number, item, f"{name}.{number}")
        elif isinstance(value, set):
            self.slots.append(_Slot(value, set(value), name))
        elif _is_plain_object(value):
            self.slots.append(_Slot(vars(value), dict(vars(value)), name))
            for inner, item in vars(value).items():
                self._add(vars(value), inner, item, f"{name}.{inner}")


def _is_plain_object(value: Any) -> bool:
    """Whether a network's own code may keep state in it: no function, and nothing of torch."""
    home = type(value).__module__.partition(".")[0]
    has_own_state = isinstance(getattr(value, "__dict__", None), dict)
    return has_own_state and not callable(value) and home not in ("torch", "builtins")


# -- putting back --------------------------------------------------------------------------------


@contextmanager
def attributes_restored(module: nn.Module, changes: Changes | None = None) -> Iterator[None]:
    """On exit every module has the attributes it had, and its containers their entries.

    Values that are written into a tensor stay; :func:`state_restored` puts them back, too. timm's
    attention keeps its biases in a dictionary when it first runs: after a run in float64 the
    network would go on with those, and fail in float32.

    Args:
        module: the network.
        changes: filled with the names of what had changed.
    """
    state = _State(module)
    values = [(t, t.detach()) for _, _, t in state.tensors if _has_storage(t)]
    names = {id(t): (kind, name) for kind, name, t in state.tensors}
    try:
        yield
    finally:
        for t, before in values:
            if t.data_ptr() != before.data_ptr() or t.shape != before.shape:
                t.data = before  # it was assigned to ``.data``
                if changes is not None:
                    changes.add(*names[id(t)])
        for slot in state.slots:
            if changes is not None:
                for name in slot.changed_names():
                    changes.add(slot.kind, name)
            slot.refill()


def _has_storage(tensor: Tensor) -> bool:
    is_plain = type(tensor) in (Tensor, nn.Parameter, nn.Buffer)
    return is_plain and tensor.layout == torch.strided and tensor.device.type != "meta"


@contextmanager
def state_restored(module: nn.Module, changes: Changes | None = None) -> Iterator[None]:
    """On exit a network is as it was: attributes, containers, and the values of its tensors.

    A tensor is copied just before it is first written into, and no other one.

    Args:
        module: the network.
        changes: filled with the names of what had changed.
    """
    state = _State(module)
    watch = _CopyBeforeWrite(state.tensors)
    try:
        with (
            torch.compiler.set_stance("force_eager"),  # compiled code writes unseen
            attributes_restored(module, changes),
            watch,
        ):
            yield
    finally:
        for kind, name in watch.restore():
            if changes is not None:
                changes.add(kind, name)


class _CopyBeforeWrite(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Keeps the values of watched tensors from before the first operation that writes into them."""

    def __init__(self, tensors: list[tuple[Kind, str, Tensor]]) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._watched: dict[int, tuple[UntypedStorage, list[tuple[Kind, str]]]] = {}
        for kind, name, tensor in tensors:
            if _has_storage(tensor):
                storage = tensor.untyped_storage()
                entry = self._watched.setdefault(storage._cdata, (storage, []))
                entry[1].append((kind, name))
        self._kept: dict[int, UntypedStorage] = {}

    def __torch_dispatch__(
        self,
        func: Any,
        types: Any,
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:
        """Keep what is about to be written, then run the operation."""
        kwargs = kwargs or {}
        if func._schema.name == "aten::native_batch_norm" and args[5]:
            for value in args[3:5]:  # running statistics, of which its schema says nothing
                self._keep(value)
        if func._schema.is_mutable:
            for number, argument in enumerate(func._schema.arguments):
                if argument.alias_info is not None and argument.alias_info.is_write:
                    given = args[number] if number < len(args) else kwargs.get(argument.name)
                    for value in given if isinstance(given, (list, tuple)) else (given,):
                        self._keep(value)
        return func(*args, **kwargs)

    def _keep(self, value: Any) -> None:
        if isinstance(value, Tensor) and _has_storage(value):
            key = value.untyped_storage()._cdata
            if key in self._watched and key not in self._kept:
                self._kept[key] = self._watched[key][0].clone()  # type: ignore[no-untyped-call]

    def restore(self) -> Iterator[tuple[Kind, str]]:
        """Put the values back, and give the names of the tensors that had been written into."""
        for key, before in self._kept.items():
            storage, names = self._watched[key]
            storage.copy_(before)
            yield from names


@contextmanager
def in_float64(module: nn.Module) -> Iterator[None]:
    """Every narrow floating-point tensor that a network holds is float64, and then as it was."""
    narrow = [t for _, _, t in _State(module).tensors if t.dtype in _NARROW]
    before = [t.detach() for t in narrow]
    try:
        for t in narrow:
            t.data = t.detach().double()
        yield
    finally:
        for t, values in zip(narrow, before, strict=True):
            t.data = values


@contextmanager
def in_eval_mode(module: nn.Module, notes: list[str]) -> Iterator[None]:
    """Put every submodule into eval mode, and back into the one it was in; say so if it mattered.

    Wrappers around submodules (``torch.compile``, ``nn.DataParallel``) are taken off. torch's
    random stream, the fused attention kernel, which has no ONNX form, and what a run writes into
    attributes are restored too.
    """
    has_fast_path = torch.backends.mha.get_fastpath_enabled()
    with ExitStack() as stack:
        stack.enter_context(torch.random.fork_rng(devices=[]))
        stack.enter_context(attributes_restored(module))
        stack.enter_context(wrappers_taken_off(module, notes))
        modes = [(child, child.training) for child in module.modules()]
        num_training = sum(training for _, training in modes)
        try:
            module.eval()
            for child, _ in modes:
                child.training = False  # where a class overrides train() to keep some of it on
            torch.backends.mha.set_fastpath_enabled(False)
            if num_training:
                notes.append(
                    f"{num_training} of {len(modes)} modules were in training mode: the network "
                    "was exported in eval mode (no dropout, fixed statistics) and set back."
                )
            yield
        finally:
            torch.backends.mha.set_fastpath_enabled(has_fast_path)
            for child, training in modes:
                child.training = training
