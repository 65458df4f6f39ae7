"""Transfer learning: training that starts from weights trained for something else.

The head gives the class scores: it is the last linear layer, 1x1 convolution or RBF output.
Networks in training may also have auxiliary heads, in modules named ``aux...``.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from fnmatch import fnmatchcase

from pydantic import Field
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _NormBase

from dlzoo.errors import ArgumentError
from dlzoo.zoo.layers.rbf import RBFOutput
from dlzoo.zoo.parameter_groups import NORM_LAYERS, ParameterGroup, parameter_groups
from dlzoo.zoo.settings import Settings
from dlzoo.zoo.state_dict import COUNTER, copy_state_dict

#: Modules that only contain others, in order.
_ROWS = (nn.Sequential, nn.ModuleList, nn.ModuleDict)
#: A module with more than this share of all parameters is searched for layers, too.
_MOST = 0.75


class Transfer(Settings):
    """How training starts from trained weights."""

    freeze: tuple[str, ...] = ()
    """Modules or parameters to keep unchanged: names, or patterns such as ``layer[12]``."""
    layer_lr_decay: float = Field(default=1.0, gt=0, le=1)
    """Factor of the learning rate between each layer and the one before it; the head has 1."""
    new_head: bool = False
    """Draw a new head even if the trained one has the right number of classes."""

    def load(
        self, module: nn.Module, state_dict: Mapping[str, Tensor], subject: str
    ) -> list[str]:
        """Load trained weights with :func:`load_transfer`."""
        return load_transfer(module, state_dict, subject=subject, new_head=self.new_head)

    def parameter_groups(self, module: nn.Module) -> list[ParameterGroup]:
        """Freeze parameters, and group the others with their learning rates.

        Raises:
            ArgumentError: a pattern matches nothing, or nothing is left to train.
        """
        freeze(module, self.freeze)
        is_even = self.layer_lr_decay == 1
        return parameter_groups(
            module, None if is_even else layer_lr_scales(module, self.layer_lr_decay)
        )

    def after_train_mode(self, module: nn.Module) -> None:
        """Put frozen normalizations into eval mode; called after every ``module.train()``."""
        if self.freeze:
            keep_frozen_in_eval(module)


# -- heads -----------------------------------------------------------------------------------------


def find_heads(module: nn.Module, num_classes: int | None = None) -> list[str]:
    """Names of the modules that give class scores: the main head, then auxiliary ones.

    Args:
        module: a classifier.
        num_classes: if given, consider only layers with this many outputs.

    Raises:
        ArgumentError: the module has no head.
    """
    last_of: dict[str, str] = {}
    for name, part in module.named_modules():
        if _num_scores(part) is not None and num_classes in (None, _num_scores(part)):
            last_of[_auxiliary(name)] = name
    if "" not in last_of:
        what = "" if num_classes is None else f" with {num_classes} outputs"
        raise ArgumentError(
            f"{type(module).__name__}: got no linear layer or 1x1 convolution{what}, expected one "
            "as the head; pass a classifier."
        )
    return [last_of.pop(""), *last_of.values()]


def _num_scores(part: nn.Module) -> int | None:
    if isinstance(part, nn.Linear):
        return part.out_features
    if isinstance(part, nn.Conv2d) and part.kernel_size == (1, 1) and part.groups == 1:
        return part.out_channels
    return len(part.codes) if isinstance(part, RBFOutput) else None


def _auxiliary(name: str) -> str:
    """The path of the auxiliary head around a module or tensor; empty if there is none."""
    parts = name.split(".")
    for i, part in enumerate(parts):
        if part.lower().startswith("aux"):
            return ".".join(parts[: i + 1])
    return ""


def load_transfer(
    module: nn.Module,
    state_dict: Mapping[str, Tensor],
    *,
    subject: str = "Weights",
    new_head: bool = False,
) -> list[str]:
    """Load weights for another number of classes; heads that do not fit keep their drawn weights.

    The weights may lack the head, and auxiliary heads may be missing on either side.

    Args:
        module: network for the new number of classes, with drawn weights.
        state_dict: the trained weights.
        subject: name of the weights in messages.
        new_head: keep the drawn weights of heads even if the trained ones fit.

    Returns:
        The keys that keep their drawn weights.

    Raises:
        CheckpointMismatchError: anything other than a head differs.
    """
    own = module.state_dict()
    heads = find_heads(module)
    given = {k: v for k, v in state_dict.items() if k in own or not _auxiliary(k)}
    drawn = []
    for key, value in own.items():
        is_head = key.rpartition(".")[0] in heads
        fits = key in given and given[key].shape == value.shape
        is_absent = key not in given and bool(_auxiliary(key)) and not key.endswith(COUNTER)
        if (is_head and (new_head or not fits)) or is_absent:
            drawn.append(key)
    # Half a head is not worth keeping: its bias belongs to the weights it was trained with.
    drawn_heads = {key.rpartition(".")[0] for key in drawn} & set(heads)
    drawn = [key for key in own if key in drawn or key.rpartition(".")[0] in drawn_heads]
    copy_state_dict(module, {**given, **{key: own[key].clone() for key in drawn}}, subject)
    return drawn


# -- frozen stages ---------------------------------------------------------------------------------


def freeze(module: nn.Module, patterns: Sequence[str]) -> list[str]:
    """Freeze parameters, and return the names of all frozen ones.

    A pattern matches a parameter, or a module with everything in it: ``features.0``,
    ``layer[12]``, ``encoder.layers.*.mlp``. ``*`` matches anything, dots included.

    Raises:
        ArgumentError: a pattern matches nothing.
    """
    parameters = dict(module.named_parameters())
    for pattern in patterns:
        chosen = [name for name in parameters if _is_meant(name, pattern)]
        if not chosen:
            children = [
                name for name, child in module.named_children() if list(child.parameters())
            ]
            raise ArgumentError(
                f"`freeze` got {pattern!r}, which matches no parameter of {type(module).__name__}; "
                f"expected names such as {', '.join(children[:4]) or next(iter(parameters), '-')}."
            )
        for name in chosen:
            parameters[name].requires_grad_(False)
    return [name for name, parameter in parameters.items() if not parameter.requires_grad]


def _is_meant(name: str, pattern: str) -> bool:
    parts = name.split(".")
    return any(fnmatchcase(".".join(parts[:n]), pattern) for n in range(1, len(parts) + 1))


def keep_frozen_in_eval(module: nn.Module) -> list[str]:
    """Put frozen normalizations into eval mode, and return their names.

    In training mode their running statistics would still change with each batch. One without
    parameters counts as frozen if everything in its parent is.
    """
    parts = dict(module.named_modules())
    frozen = []
    for name, part in parts.items():
        if not isinstance(part, _NormBase):
            continue
        holder = name
        while holder and not list(parts[holder].parameters()):
            holder = holder.rpartition(".")[0]
        if all(not parameter.requires_grad for parameter in parts[holder].parameters()):
            part.eval()
            frozen.append(name)
    return frozen


# -- learning rates by layer -----------------------------------------------------------------------


def layer_lr_scales(module: nn.Module, decay: float) -> dict[str, float]:
    """Factors of the learning rate: 1 for the head, decay^n for the n-th layer before it.

    ``decay^(L - 1 - l)`` for layer l of L, counted from the input. A layer is an element of the
    network's sequences (a convolution with its norm, a residual or transformer block, an Inception
    module), in construction order. Auxiliary heads have factor 1.

    Source:
        Howard & Ruder 2018, "Universal language model fine-tuning", section 3.2 (discriminative
        fine-tuning); Bao et al. 2022, "BEiT", section 3.1 (layer-wise decay).

    Returns:
        The factor of every parameter, by name.
    """
    layers = _layers(module)
    depth = [names for names in layers if not _auxiliary(names[0])]
    scales = {
        name: decay ** (len(depth) - 1 - i) for i, names in enumerate(depth) for name in names
    }
    scales.update({name: 1.0 for names in layers for name in names if name not in scales})
    return scales


def _layers(module: nn.Module) -> list[list[str]]:
    """Names of the parameters of each layer, counted from the input."""
    num_all = sum(p.numel() for p in module.parameters())
    layers: list[list[str]] = []
    #: Parameters outside of layers (a class token) belong to the layer that follows.
    loose: list[str] = []
    seen: set[int] = set()

    def unseen(names: Iterator[tuple[str, nn.Parameter]]) -> list[str]:
        new = [(name, parameter) for name, parameter in names if id(parameter) not in seen]
        seen.update(id(parameter) for _, parameter in new)
        return [name for name, _ in new]

    def visit(part: nn.Module, path: str) -> None:
        share = sum(p.numel() for p in part.parameters()) / max(1, num_all)
        is_row = isinstance(part, _ROWS) or share > _MOST
        if is_row and next(part.children(), None) is not None:
            loose.extend(unseen(part.named_parameters(path, recurse=False)))
            for name, child in part.named_children():
                visit(child, f"{path}.{name}".lstrip("."))
            return
        names = unseen(part.named_parameters(path))
        if not names:
            return
        if isinstance(part, NORM_LAYERS) and layers and not loose:
            layers[-1].extend(names)
            return
        layers.append([*loose, *names])
        loose.clear()

    visit(module, "")
    if loose:
        layers.append(loose)
    return layers
