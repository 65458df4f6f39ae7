"""What TensorBoard reads of a run."""

from pathlib import Path

from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from dlzoo.zoo.train.recipes.recipe import DataSettings, LoopSettings, ModelSettings, Recipe
from dlzoo.zoo.training import train


def test_every_number_of_a_row_is_a_curve(tmp_path: Path) -> None:
    recipe = Recipe(
        model=ModelSettings(name="lenet5_relu"),
        data=DataSettings(name="digits"),
        loop=LoopSettings(epochs=2, batch_size=256),
    )
    run = train(recipe, tmp_path / "run", device="cpu")
    events = EventAccumulator(str(run.folder / "tensorboard")).Reload()
    for name in ("train_loss", "validation_top1_percent", "learning_rate"):
        written = [(event.step, event.value) for event in events.Scalars(name)]
        assert [step for step, _ in written] == [1, 2]
        for (_, value), row in zip(written, run.rows, strict=True):
            assert abs(value - row[name]) <= 1e-6 * abs(row[name])  # float32 in the file
