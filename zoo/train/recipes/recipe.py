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


class ModelSettings(Settings):
    """The network."""

    name: str
    """A MODEL: a name of the zoo, ``package.module:factory``, ``file.py:factory``, ``timm:NAME``."""
    arguments: dict[str, Any] = Field(default_factory=dict)
    """Arguments of a zoo model's builder, such as ``activation = "mish"``."""
    weights: str = "none"
    """What training starts from: none (drawn anew), imagenet, or a .safetensors or .pth file."""


class DataSettings(Settings):
    """The images, and how each becomes an input."""

    name: str = "digits"
    """digits, mnist, fashion-mnist, cifar-10, an image folder, or an index .csv."""
    root: str | None = None
    """The folder that holds a named data set; where absent, the usual places."""
    color: Literal["RGB", "L"] | None = None
    """Colours, or grey levels; the model's own where absent."""
    resize_size: PositiveInt | Literal["none"] | None = None
    """Pixels of the shorter side after resizing, or none to squeeze; the model's own where absent."""
    image_size: tuple[PositiveInt, PositiveInt] | None = None
    """Height and width of what is cut out of the middle; the model's own where absent."""
    validation: float = Field(0.1, ge=0, lt=1)
    """Share of the training images held back to choose the best weights by; 0: the last are taken."""
    on_corrupt: Literal["refuse", "skip"] = "refuse"
    """What to do about images that cannot be read."""
    num_workers: int = Field(0, ge=0)
    """Processes that read and augment images; 0 does it in the training process."""


class LoopSettings(Settings):
    """How long, in what portions, and with what arithmetic."""

    epochs: int = Field(10, ge=1)
    batch_size: int = Field(128, ge=1)
    """Images for each step of the optimizer, over all processes: 1 is single-sample descent, the number of images or more full-batch."""
    micro_batches: int = Field(1, ge=1)
    """Parts of a batch that are computed one after another and accumulated, to save memory."""
    drop_last: bool = False
    """Leave out an epoch's last batch where it is not full."""
    evaluation_batch_size: int = Field(256, ge=1)
    seed: int = Field(0, ge=0)
    """Draws the weights, the order, and every augmentation."""
    precision: Literal["32-true", "16-mixed", "bf16-mixed", "64-true"] = "32-true"
    """Lightning Fabric's name of the arithmetic."""
    clip_norm: float | None = Field(None, gt=0)
    """Gradients are scaled down to this Euclidean norm where theirs is larger."""
    auxiliary_weight: float = Field(0.3, ge=0)
    """Weight of the loss of each auxiliary head (Szegedy et al. 2014, section 5)."""
    synchronize_batch_norm: bool = True
    """Statistics over the batches of all processes, where there are several."""
    patience: int | None = Field(None, ge=1)
    """Stop after so many epochs without a better validation loss."""
    checkpoint_minutes: float = Field(10.0, gt=0)
    """Write a checkpoint within a long epoch, too, this often."""
    deterministic: bool = True
    """Let CUDA use only algorithms that give the same bits each time."""
    channels_last: bool = False
    """Lay images out as NHWC in memory, which is faster on some processors."""


class Recipe(Settings):
    """Every number of a training run."""

    title: str = ""
    source: str = ""
    """Where the numbers come from: a paper and its section."""
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
                raise ValueError("loop.patience needs images to judge by: set data.validation")
            if self.schedule.name == "plateau":
                raise ValueError(
                    "the plateau schedule needs images to judge by: set data.validation"
                )
        return self
