"""Modules that wrap a network to train or run it faster, and compute nothing of their own."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from torch import nn

#: Class of a wrapper -> the attribute that holds the network. By name: most of these packages are
#: not installed where they are not used.
_NETWORK_IN = {
    "torch.nn.parallel.data_parallel.DataParallel": "module",
    "torch.nn.parallel.distributed.DistributedDataParallel": "module",
    "torch.distributed.fsdp.fully_sharded_data_parallel.FullyShardedDataParallel": "module",
    "torch.distributed.algorithms._checkpoint.checkpoint_wrapper.CheckpointWrapper": (
        "_checkpoint_wrapped_module"
    ),
    "torch.distributed.algorithms._checkpoint.checkpoint_wrapper.OffloadWrapper": (
        "_checkpoint_wrapped_module"
    ),
    "torch._dynamo.eval_frame.OptimizedModule": "_orig_mod",
    "torch.optim.swa_utils.AveragedModel": "module",
    "lightning_fabric.wrappers._FabricModule": "_original_module",
    "lightning.fabric.wrappers._FabricModule": "_original_module",
    "timm.utils.model_ema.ModelEma": "ema",
    "timm.utils.model_ema.ModelEmaV2": "module",
    "timm.utils.model_ema.ModelEmaV3": "module",
    "deepspeed.runtime.engine.DeepSpeedEngine": "module",
    "opacus.grad_sample.grad_sample_module.GradSampleModule": "_module",
}
#: What these attributes put into the keys of a state dict, wherever a wrapper stands.
KEY_PARTS = (
    "_orig_mod",
    "_checkpoint_wrapped_module",
    "_fsdp_wrapped_module",
    "_original_module",
    "_forward_module",
)


def _network_in(module: nn.Module) -> nn.Module | None:
    """The network within a wrapper; None where a module is no wrapper."""
    for kind in type(module).__mro__:
        attribute = _NETWORK_IN.get(f"{kind.__module__}.{kind.__qualname__}")
        if attribute is not None:
            if getattr(type(module), "forward", None) is not getattr(kind, "forward", None):
                return None  # a subclass that computes something of its own
            inner = getattr(module, attribute, None)
            return inner if isinstance(inner, nn.Module) else None
    return None


def unwrap(module: nn.Module) -> tuple[nn.Module, tuple[str, ...]]:
    """The network within any number of wrappers, and the wrappers' names from the outside in."""
    names = []
    inner = _network_in(module)
    while inner is not None:
        names.append(_name_of(module))
        module, inner = inner, _network_in(inner)
    return module, tuple(names)


def _name_of(wrapper: nn.Module) -> str:
    kinds = [k.__name__ for k in type(wrapper).__mro__]
    return "torch.compile" if "OptimizedModule" in kinds else kinds[0]


@contextmanager
def wrappers_taken_off(module: nn.Module, notes: list[str]) -> Iterator[None]:
    """Submodules stand without their wrappers, and then within them again; each is noted.

    A module that was compiled in place (``module.compile()``) runs as it is written.
    """
    before: list[tuple[dict[str, nn.Module | None], str, nn.Module]] = []
    compiled = []
    for path, part in list(module.named_modules()):
        if part is not module and _network_in(part) is not None:
            continue  # within another wrapper
        for name, child in part._modules.items():
            if child is None:
                continue
            inner, wrappers = unwrap(child)
            if wrappers:
                before.append((part._modules, name, child))
                part._modules[name] = inner
                place = ".".join(
                    p for p in [*path.split("."), name] if p and p not in KEY_PARTS
                )
                notes.append(f"{' and '.join(wrappers)} around {place!r} is taken off.")
    for path, part in module.named_modules():
        if getattr(part, "_compiled_call_impl", None) is not None:
            compiled.append((part, part._compiled_call_impl))
            part._compiled_call_impl = None
            place = repr(path) if path else "the network"
            notes.append(f"torch.compile around {place} is taken off.")
    try:
        yield
    finally:
        for table, name, child in before:
            table[name] = child
        for part, call in compiled:
            part._compiled_call_impl = call
