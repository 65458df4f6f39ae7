"""An exponential moving average of the weights, which is often better than the last weights."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import torch
from pydantic import Field
from torch import Tensor, nn

from dlzoo.errors import CheckpointMismatchError
from dlzoo.zoo.settings import Settings

#: Key of the number of updates; no tensor of a module has this name.
NUM_UPDATES = "num_updates"


class WeightAverageSettings(Settings):
    """A moving average of the weights.

    ``a <- d a + (1 - d) w`` after every step, ``d = min(decay, (1 + n) / (10 + n))`` at the
    n-th with a warm-up, so that the first weights are soon forgotten

    Source:
        Polyak & Juditsky 1992, "Acceleration of stochastic approximation by averaging"; decay
        and warm-up: Szegedy et al. 2016, "Rethinking the Inception architecture", section 8, as
        in TensorFlow's ``ExponentialMovingAverage``.
    """

    decay: float = Field(default=0.9999, ge=0, lt=1)
    """Share of the average that each step keeps."""
    warmup: bool = True
    """Keep a smaller share in the first steps."""

    def start(self, module: nn.Module) -> WeightAverage:
        """An average that starts from the module's weights."""
        return WeightAverage(module, self)


class WeightAverage:
    """The running average of a module's parameters and running statistics.

    Tensors of other types than floating point, such as counters, have the module's last value.
    Tensors are on the module's device.

    Args:
        module: its present weights are the first average.
        settings: decay and warm-up.
    """

    def __init__(self, module: nn.Module, settings: WeightAverageSettings) -> None:
        self._settings = settings
        self._num_updates = 0
        self._tensors = {
            name: value.detach().clone() for name, value in module.state_dict().items()
        }

    def decay(self) -> float:
        """Share of the average that the next update keeps."""
        if not self._settings.warmup:
            return self._settings.decay
        n = self._num_updates
        return min(self._settings.decay, (1 + n) / (10 + n))

    @torch.no_grad()
    def update(self, module: nn.Module) -> None:
        """Include the weights after a step."""
        averages: list[Tensor] = []
        values: list[Tensor] = []
        for name, value in module.state_dict().items():
            average = self._tensors[name]
            if value.is_floating_point():
                averages.append(average)
                values.append(value.detach())
            else:
                average.copy_(value)
        torch._foreach_lerp_(averages, values, 1 - self.decay())
        self._num_updates += 1

    def state_dict(self) -> dict[str, Tensor]:
        """The averages under the module's own names."""
        return dict(self._tensors)

    @contextmanager
    def applied_to(self, module: nn.Module) -> Iterator[None]:
        """Load the averages into the module for a while, then its own weights, bit by bit."""
        own = {name: value.detach().clone() for name, value in module.state_dict().items()}
        try:
            module.load_state_dict(self._tensors)
            yield
        finally:
            module.load_state_dict(own)

    def tensors(self) -> dict[str, Tensor]:
        """The state to save in a checkpoint: the averages and the number of updates."""
        return {**self._tensors, NUM_UPDATES: torch.tensor(self._num_updates)}

    @torch.no_grad()
    def load(self, tensors: Mapping[str, Tensor]) -> None:
        """Restore the state that :meth:`tensors` returned.

        Raises:
            CheckpointMismatchError: the state is that of another network.
        """
        expected = {*self._tensors, NUM_UPDATES}
        different = sorted(expected ^ set(tensors))
        different += [
            name
            for name, value in self._tensors.items()
            if name in tensors and tensors[name].shape != value.shape
        ]
        if different:
            raise CheckpointMismatchError(
                f"Average of the weights: {len(different)} tensors differ from this network's "
                f"({different[0]} is the first), expected those of the same network; resume with the "
                "run's own recipe."
            )
        for name, value in self._tensors.items():
            value.copy_(tensors[name])
        self._num_updates = int(tensors[NUM_UPDATES])
