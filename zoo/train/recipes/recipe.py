"""A recipe: every number of a training run."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field, PositiveInt, model_validator

from dlzoo.zoo.data.augmentation.pipeline import Augmentation
from dlzoo.zoo.data.normalization import MeanStd, Normalization
from dlzoo.zoo.initialization.weight_schemes import DefaultScheme, Initialization
from dlzoo.zoo.settings import Settings
from dlzoo.zoo.train.losses.cross_entropy import CrossEntropy
from dlzoo.zoo.train.losses.loss import Loss
from dlzoo.zoo.train.losses.penalties import Penalty
from dlzoo.zoo.train.optimize.optimizers import AdamW, Optimizer
from dlzoo.zoo.train.optimize.schedules import Cosine, Schedule
from dlzoo.zoo.train.optimize.transfer import Transfer
from dlzoo.zoo.train.optimize.weight_average import WeightAverageSettings

#: Lightning Fabric's names of the arithmetic.
Precision = Literal["32-true", "16-mixed", "bf16-mixed", "64-true"]


class ModelSettings(Settings):
    """The network."""

    name: str
    """The network: a name of the zoo, ``package.module:factory``, ``file.py:factory`` or ``timm:NAME``."""
    arguments: dict[str, Any] = Field(default_factory=dict)
    """Arguments for the builder of a zoo model, such as ``activation = "mish"``."""
    weights: str = "none"
    """Starting weights: none (drawn at random), imagenet, or a .safetensors or .pth file."""


class DataSettings(Settings):
    """The images, and how each one becomes an input."""

    name: str = "digits"
    """digits, mnist, fashion-mnist, cifar-10, an image folder, or an index .csv."""
    root: str | None = None
    """Folder of a named data set; if absent, the usual places are searched."""
    color: Literal["RGB", "L"] | None = None
    """RGB or grey levels (L); if absent, the model's own."""
    resize_size: PositiveInt | Literal["none"] | None = None
    """Shorter side after resizing, in pixels, or none to squeeze; if absent, the model's own."""
    image_size: tuple[PositiveInt, PositiveInt] | None = None
    """Height and width of the centre crop, in pixels; if absent, the model's own."""
    validation: float = Field(0.1, ge=0, lt=1)
    """Share of the training images held back to choose the best weights; with 0 the last weights are kept."""
    on_corrupt: Literal["refuse", "skip"] = "refuse"
    """Whether images that cannot be read are an error or are skipped."""
    num_workers: int = Field(0, ge=0)
    """Processes that read and augment images; with 0 the training process does it."""


class LoopSettings(Settings):
    """Length of the training, batches, and arithmetic."""

    epochs: int = Field(10, ge=1)
    batch_size: int = Field(128, ge=1)
    """Images per optimizer step, over all processes: 1 is single-sample descent, the number of images or more is full-batch."""
    micro_batches: int = Field(1, ge=1)
    """Number of parts a batch is split into; their gradients are accumulated, to save memory."""
    drop_last: bool = False
    """Drop the last batch of an epoch if it is not full."""
    evaluation_batch_size: int = Field(256, ge=1)
    seed: int = Field(0, ge=0)
    """Seed of the weights, the order of the images and every augmentation."""
    precision: Precision = "32-true"
    """Arithmetic, by its name in Lightning Fabric."""
    clip_norm: float | None = Field(None, gt=0)
    """Largest Euclidean norm of the gradient; a larger gradient is scaled down to it."""
    auxiliary_weight: float = Field(0.3, ge=0)
    """Weight of the loss of each auxiliary head (Szegedy et al. 2014, section 5)."""
    synchronize_batch_norm: bool = True
    """With several processes, compute batch statistics over all of them."""
    patience: int | None = Field(None, ge=1)
    """Stop after this many epochs without a lower validation loss."""
    checkpoint_minutes: float = Field(10.0, gt=0)
    """Minutes between checkpoints within a long epoch."""
    deterministic: bool = True
    """Let CUDA use only algorithms that give the same bits every time."""
    channels_last: bool = False
    """Store images as NHWC in memory, which is faster on some processors."""


class Recipe(Settings):
    """Every number of a training run."""

    title: str = ""
    source: str = ""
    """Source of the numbers: a paper and its section."""
    model: ModelSettings
    data: DataSettings = DataSettings()
    normalization: Normalization = MeanStd()
    augmentation: tuple[Augmentation, ...] = ()
    initialization: Initialization = DefaultScheme()
    transfer: Transfer = Transfer()
    loss: Loss = CrossEntropy()
    penalty: tuple[Penalty, ...] = ()
    optimizer: Optimizer = AdamW()
    schedule: Schedule = Cosine()
    weight_average: WeightAverageSettings | None = None
    loop: LoopSettings = LoopSettings()

    @model_validator(mode="after")
    def _require_validation(self) -> Recipe:
        if self.data.validation == 0:
            if self.loop.patience is not None:
                raise ValueError("loop.patience needs validation images: set data.validation")
            if self.schedule.name == "plateau":
                raise ValueError(
                    "the plateau schedule needs validation images: set data.validation"
                )
        return self
