"""``dlzoo train``: images and a recipe become a run, which can be exported like any model."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from dlzoo.errors import ArgumentError, InterruptedRunError

if TYPE_CHECKING:
    from dlzoo.zoo.train.recipes.recipe import Recipe
    from dlzoo.zoo.training import Run


def train(
    model: Annotated[
        str | None,
        typer.Argument(
            metavar="MODEL",
            help='A name from "dlzoo models", package.module:FACTORY or file.py:FACTORY (runs '
            "that code), timm:NAME or torchvision:NAME; the recipe's own if absent.",
        ),
    ] = None,
    data: Annotated[
        str | None,
        typer.Option(
            help="digits (needs nothing), mnist, fashion-mnist, cifar-10, an image folder, or an "
            "index .csv; the recipe's own if absent, else digits."
        ),
    ] = None,
    data_root: Annotated[
        str | None, typer.Option(help="The folder that holds a named data set.")
    ] = None,
    recipe: Annotated[
        str | None,
        typer.Option(
            help="A .toml file, or the name of a recipe that ships; if absent, the one for this "
            "model and data, else general defaults."
        ),
    ] = None,
    output: Annotated[
        Path | None,
        typer.Option("-o", "--output", help="The run's folder; runs/MODEL-DATA if absent."),
    ] = None,
    resume: Annotated[
        Path | None, typer.Option(help="Continue the run in this folder.")
    ] = None,
    epochs: Annotated[
        int | None, typer.Option(help="Passes over the training images.")
    ] = None,
    batch_size: Annotated[
        int | None,
        typer.Option(help="Images per step, from 1 to all of them."),
    ] = None,
    lr: Annotated[float | None, typer.Option(help="The learning rate.")] = None,
    weights: Annotated[
        str | None,
        typer.Option(help="Start from imagenet or a .safetensors or .pth FILE."),
    ] = None,
    image_size: Annotated[
        str | None, typer.Option(help="H,W of the network's input; the model's own if absent.")
    ] = None,
    seed: Annotated[
        int | None, typer.Option(help="Seed of weights, order and augmentations.")
    ] = None,
    workers: Annotated[
        int | None, typer.Option(help="Processes that read images; 0: this process.")
    ] = None,
    precision: Annotated[
        str | None, typer.Option(help="32-true, bf16-mixed or 16-mixed.")
    ] = None,
    set_: Annotated[
        list[str] | None,
        typer.Option(
            "--set",
            help="Set a key of the recipe: KEY=VALUE, such as loop.clip_norm=1; repeatable.",
        ),
    ] = None,
    device: Annotated[str, typer.Option(help="auto, cpu or cuda.")] = "auto",
    show_recipe: Annotated[
        bool, typer.Option("--show-recipe", help="Print the complete recipe, and stop.")
    ] = False,
    plot_schedule: Annotated[
        Path | None,
        typer.Option(help="Draw the learning rate over the run to an .svg FILE, and stop."),
    ] = None,
    json: Annotated[bool, typer.Option("--json", help="One JSON document on stdout.")] = False,
) -> None:
    """Train a model on images.

    The run's folder holds the complete recipe, the best weights, checkpoints and metrics. "dlzoo
    export RUN" makes a bundle of it. torchrun starts it in several processes.
    """
    changes: dict[str, Any] = {
        "data.name": data,
        "data.root": data_root,
        "loop.epochs": epochs,
        "loop.batch_size": batch_size,
        "optimizer.lr": lr,
        "model.weights": weights,
        "data.image_size": _parse_size(image_size),
        "loop.seed": seed,
        "data.num_workers": workers,
        "loop.precision": precision,
    }
    changes = {key: value for key, value in changes.items() if value is not None}
    if resume is not None:
        _refuse_changes(resume, model, recipe, output, changes, set_)
        plan, folder = _recipe_of(resume), resume
    else:
        plan = _chosen_recipe(model, data, recipe, changes, set_ or [])
        folder = output or Path("runs") / _run_name(plan)
    if show_recipe:
        _print_recipe(plan)
    elif plot_schedule is not None:
        _plot_schedule(plan, plot_schedule)
    else:
        _run(plan, folder, is_resumed=resume is not None, device=device, json=json)


def _run(plan: Recipe, folder: Path, *, is_resumed: bool, device: str, json: bool) -> None:
    from dlzoo.cli.console import print_document, print_note
    from dlzoo.cli.training_display import print_run, training_display
    from dlzoo.zoo.training import train as train_network

    try:
        with training_display(quiet=json) as display:
            run = train_network(
                plan,
                folder,
                resume=is_resumed,
                device=device,
                on_report=display.report,
                on_stage=display.show,
                on_note=print_note,
                on_bytes=display.show_bytes,
            )
    except KeyboardInterrupt:
        if not (folder / "recipe.toml").is_file():
            raise  # the run had not begun
        raise InterruptedRunError(
            f"interrupted. Continue from the last checkpoint: dlzoo train --resume {folder}"
        ) from None
    if _is_first_process():
        if json:
            print_document(_document(run))
        else:
            print_run(run)


def _document(run: Run) -> dict[str, Any]:
    return {
        "folder": str(run.folder),
        "best_epoch": run.best_epoch,
        "epochs": run.rows,
        "test": run.test,
    }


def _is_first_process() -> bool:
    import os

    return os.environ.get("RANK", "0") == "0"


# -- which recipe ------------------------------------------------------------------------------


def _chosen_recipe(
    model: str | None,
    data: str | None,
    recipe: str | None,
    changes: dict[str, Any],
    settings: list[str],
) -> Recipe:
    from dlzoo.zoo.train.recipes.recipe import ModelSettings, Recipe
    from dlzoo.zoo.train.recipes.recipe_file import (
        find_recipe,
        parse_change,
        read_recipe_text,
        recipe_from_toml,
        recipe_to_toml,
    )
    from dlzoo.zoo.train.recipes.resolution import resolve_recipe

    changes |= dict(parse_change(text) for text in settings)
    if model is not None:
        changes["model.name"] = model
    if recipe is None and model is None:
        raise ArgumentError(
            "dlzoo train got neither a MODEL nor a --recipe. Write for example dlzoo train lenet5."
        )
    if recipe is None:
        assert model is not None
        recipe = find_recipe(model, data or "digits")
    if recipe is not None:
        text, subject = read_recipe_text(recipe)
    else:  # the general defaults, written out: --lr changes one of them
        text = recipe_to_toml(Recipe(model=ModelSettings(name=changes["model.name"])))
        subject = "the recipe"
    return resolve_recipe(recipe_from_toml(text, subject, changes))


def _recipe_of(run: Path) -> Recipe:
    from dlzoo.zoo.train.run.run_folder import RunFolder

    return RunFolder.open(run).recipe


def _refuse_changes(
    resume: Path,
    model: str | None,
    recipe: str | None,
    output: Path | None,
    changes: dict[str, Any],
    settings: list[str] | None,
) -> None:
    given = [*changes, *(settings or [])]
    given += [
        name
        for name, value in (("MODEL", model), ("--recipe", recipe), ("--output", output))
        if value is not None
    ]
    if given:
        raise ArgumentError(
            f"--resume {resume} uses the run's own recipe, and got {', '.join(given)} as well. "
            "Leave that out, or start another run."
        )


def _run_name(plan: Recipe) -> str:
    model = Path(plan.model.name.rpartition(":")[2]).stem
    return f"{model}-{Path(plan.data.name).stem}"


def _parse_size(text: str | None) -> tuple[int, int] | None:
    if text is None:
        return None
    parts = text.split(",")
    if len(parts) == 2 and all(part.strip().isdecimal() and int(part) > 0 for part in parts):
        return int(parts[0]), int(parts[1])
    raise ArgumentError(
        f"--image-size got {text!r}, expected H,W. Write for example --image-size 32,32."
    )


# -- looking before training -------------------------------------------------------------------


def _print_recipe(plan: Recipe) -> None:
    from dlzoo.zoo.train.recipes.recipe_file import recipe_to_toml

    print(recipe_to_toml(plan), end="")


def _plot_schedule(plan: Recipe, path: Path) -> None:
    from dlzoo.zoo.train.run.checkpoint import replaced_file
    from dlzoo.zoo.training import schedule_plot

    if path.suffix != ".svg":
        raise ArgumentError(
            f"--plot-schedule got {str(path)!r}, expected a name that ends in .svg."
        )
    drawing = schedule_plot(plan)
    with replaced_file(path) as part:
        part.write_text(drawing, encoding="utf-8")
    print(f"Wrote {path}.")
