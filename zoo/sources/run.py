"""A training run: its network with the weights it chose, its classes, its preprocessing."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from dlzoo.errors import CheckpointError, describe_exception
from dlzoo.zoo.registry import Preprocessing
from dlzoo.zoo.sources.architecture import build_architecture
from dlzoo.zoo.sources.input_spec import InputSpec
from dlzoo.zoo.sources.source import ModelSource, SourceOptions, refuse_options
from dlzoo.zoo.state_dict import copy_state_dict, require_finite_weights, sha256_of_state_dict
from dlzoo.zoo.train.losses.loss import learns_embeddings
from dlzoo.zoo.train.run.run_folder import BEST, RunFolder
from dlzoo.zoo.train.run.trained_network import (
    best_weights,
    load_normalization,
    with_normalization,
)


def source_from_run(folder: Path, options: SourceOptions) -> ModelSource:
    """Rebuild what a run trained.

    What normalizes images beyond a mean and a standard deviation (whitening, each image by
    itself) becomes the first layer of the graph; the rest is the bundle's preprocessing.

    Raises:
        CheckpointError: the run has no weights yet, or they are damaged.
        RecipeError: its recipe was changed for the worse.
    """
    refuse_options(str(folder), options, ["inputs", "num_classes", "weights"])
    run = RunFolder.open(folder)
    recipe, facts = run.recipe, run.facts
    if not (folder / BEST).is_file():
        raise CheckpointError(
            f"{folder} has no {BEST}: its first epoch is not done. Go on with dlzoo train "
            f"--resume {folder}."
        )
    shape = tuple(facts["input_shape"])
    architecture = build_architecture(
        recipe.model.name,
        num_classes=len(facts["class_names"]),
        input_shape=shape,
        arguments=recipe.model.arguments,
        seed=recipe.loop.seed,
    )
    copy_state_dict(architecture.network, best_weights(folder / BEST), f"{folder}/{BEST}")
    require_finite_weights(architecture.network, str(folder))
    normalization = load_normalization(folder)
    network = with_normalization(architecture.network, normalization)
    served: dict[str, Any] = {
        key: tuple(value) if isinstance(value, list) else value
        for key, value in facts["preprocessing"].items()
    }
    try:
        preprocessing = Preprocessing(**served)
    except (TypeError, ValueError) as error:
        raise CheckpointError(
            f"{folder}/run.json is damaged: {describe_exception(error)}. Start the run again."
        ) from None
    return ModelSource(
        name=recipe.model.name.rpartition(":")[2],
        network=network.eval(),
        inputs=(InputSpec(name="input", shape=(1, *shape)),),
        output_names=("logits",),
        # A layer that whitens knows one size only.
        min_image_size=architecture.min_image_size
        if normalization.layer is None
        else shape[1:],
        card={**architecture.card, "training": _training_facts(run, facts)},
        weights={
            "kind": "trained",
            "source": f"{_own_name(recipe.model.name)} on {_own_name(recipe.data.name)}",
            "sha256": sha256_of_state_dict(network.state_dict()),
            "seed": recipe.loop.seed,
            "license": None,
            "top1_percent": (run.test or {}).get("top1_percent"),
        },
        preprocessing=preprocessing,
        # The places of an embedding are no classes.
        labels=None if learns_embeddings(recipe.loss) else tuple(facts["class_names"]),
        rho2_limit=architecture.rho2_limit,
        rhomax_limit=architecture.rhomax_limit,
        limit_reason=architecture.limit_reason,
    )


def _training_facts(run: Any, facts: dict[str, Any]) -> dict[str, Any]:
    """What the bundle says about how it was trained; no path of the machine."""
    recipe = run.recipe.resolved()
    recipe["data"] = {
        k: v for k, v in recipe["data"].items() if k not in ("root", "num_workers")
    }
    for table, key in (("data", "name"), ("model", "name"), ("model", "weights")):
        recipe[table][key] = _own_name(recipe[table][key])
    return {"recipe": recipe, "data": facts["data"], "test": run.test}


def _own_name(text: str) -> str:
    """A name as it is; of a path, the file alone: ``/home/me/nets.py:tiny`` is ``nets.py:tiny``."""
    place, colon, function = text.rpartition(":")
    if place.endswith(".py"):
        return f"{Path(place).name}{colon}{function}"
    return text if colon else Path(text).name
