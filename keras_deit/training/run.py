"""A run: a recipe in, weights and a record out."""

import json
import os
import shutil
import sys
from dataclasses import dataclass
from pathlib import Path

import keras

from keras_deit._checks import check
from keras_deit.data.augmentation import Augmentation
from keras_deit.data.image_folder import naming_unreadable_images
from keras_deit.data.pipeline import Batches, load
from keras_deit.data.views import VIEW_FORMAT
from keras_deit.distillation.distiller import Distiller
from keras_deit.distillation.teacher import Teacher
from keras_deit.models.complexity import count_macs, count_parameters
from keras_deit.models.factory import variant_config
from keras_deit.models.variants import VARIANTS
from keras_deit.training.callbacks import SaveStudent, StopIfNotFinite
from keras_deit.training.evaluation import evaluate
from keras_deit.training.optimizers import adamw
from keras_deit.training.recipe import Recipe
from keras_deit.training.report import plot_curves, print_scores, read_history
from keras_deit.training.schedules import learning_rate_schedule
from keras_deit.weights.create import create_model

OF_A_RUN = ("result.json", "history.csv", "curves.png", "last.keras", "best.keras")


@dataclass(frozen=True)
class Result:
    """What a run came to.

    Attributes:
        directory: Where its files are.
        model: The trained model, with the weights of the last epoch.
        scores: For each head `top1` and `top5` on the validation split, in [0, 1], with
            these weights. (The best epoch is chosen on the same images, so its score
            would flatter.)
    """

    directory: Path
    model: keras.Model
    scores: dict[str, dict[str, float]]


def train(
    recipe: Recipe, output: str | Path, overwrite: bool = False, download: bool = False
) -> Result:
    """Trains a model and leaves a record of it.

    In `output` lie at the end `recipe.json`, `labels.txt`, `history.csv`,
    `tensorboard/`, `curves.png`, `last.keras`, `best.keras` and `result.json`.

    Args:
        recipe: What to compute.
        output: Folder of the run. A run that ended before its first epoch is replaced.
        overwrite: Whether a run that has weights already is replaced.
        download: Whether a dataset of TensorFlow Datasets may be downloaded.

    Returns:
        The result; its scores are also in `result.json`.

    Raises:
        ValueError: If recipe, dataset and teacher do not fit together, an image is
            unreadable, or `output` holds something else.
        FileNotFoundError: If the dataset or the teacher cannot be found.
        OSError: If `output` cannot be written.
        RuntimeError: If the loss is not finite.
    """
    output = Path(output)
    _check_output(output, overwrite)
    check(
        recipe.kind == "none" or recipe.teacher is not None,
        "`teacher` must be the path of a .keras file unless `kind` is 'none' "
        "(--teacher on the command line; `train_teacher` makes one).",
        teacher=recipe.teacher,
        kind=recipe.kind,
    )
    keras.utils.set_random_seed(recipe.seed)
    teacher = None if recipe.teacher is None else Teacher(recipe.teacher)
    batches = _load(recipe, download)
    distiller = _distiller(recipe, batches, teacher)
    _announce(recipe, distiller, batches)
    _begin(output, recipe, batches)
    saver = SaveStudent(output, f"val_{accuracy_name(distiller.reported)}")
    with naming_unreadable_images(*batches.sources):
        distiller.fit(
            batches.train,
            epochs=recipe.epochs,
            steps_per_epoch=batches.steps_per_epoch,
            validation_data=batches.validation,
            shuffle=False,  # the views are in their epoch's order already
            verbose=1 if sys.stdout.isatty() else 2,
            callbacks=[
                StopIfNotFinite(),
                saver,
                keras.callbacks.CSVLogger(str(output / "history.csv")),
                keras.callbacks.TensorBoard(output / "tensorboard", write_graph=False),
            ],
        )
        scores = evaluate(distiller.student, batches.validation).scores
    _finish(output, scores, saver)
    return Result(output, distiller.student, scores)


def accuracy_name(reported) -> str:
    """Names the accuracy that counts: of the fused heads, or of the only one."""
    return "fused_accuracy" if "fused_accuracy" in reported else "accuracy"


def _load(recipe: Recipe, download: bool) -> Batches:
    config = variant_config(recipe.variant, **recipe.model_overrides)
    return load(
        recipe.dataset,
        image_size=_image_size(recipe),
        batch_size=recipe.batch_size,
        seed=recipe.seed,
        augmentation=Augmentation(
            recipe.crop_area, recipe.crop_aspect_ratio, recipe.flip
        ),
        crop_ratio=config.preprocessing.crop_ratio,
        label_smoothing=recipe.label_smoothing,
        download=download,
    )


def _image_size(recipe: Recipe) -> tuple[int, int]:
    if recipe.image_size is None:
        return VARIANTS[recipe.variant].config.image_size
    return (recipe.image_size, recipe.image_size)


def _distiller(recipe: Recipe, batches: Batches, teacher: Teacher | None) -> Distiller:
    student = create_model(
        recipe.variant,
        num_classes=len(batches.class_names),
        image_size=_image_size(recipe),
        **recipe.model_overrides,
    )
    distiller = Distiller(
        student,
        teacher,
        recipe.kind,
        alpha=recipe.alpha,
        temperature=recipe.temperature,
        reduction=recipe.reduction,
    )
    schedule = learning_rate_schedule(recipe, batches.steps_per_epoch)
    distiller.compile(adamw(student, schedule, recipe.weight_decay))
    return distiller


def _announce(recipe: Recipe, distiller: Distiller, batches: Batches) -> None:
    """Prints what the recipe comes to, before the first step."""
    student = distiller.student
    train, validation = batches.sources
    rows, columns = _image_size(recipe)
    print(
        f"{recipe.variant}: {count_parameters(student):,} parameters, "
        f"{count_macs(student) / 1e6:,.1f} million multiply-adds an image\n"
        f"{recipe.dataset}: {train.num_examples:,} training and "
        f"{validation.num_examples:,} validation images, "
        f"{len(batches.class_names)} classes, {rows} x {columns} pixels\n"
        f"{recipe.epochs} epochs of {batches.steps_per_epoch} steps of "
        f"{recipe.batch_size} images; peak learning rate "
        f"{recipe.peak_learning_rate:.3g} after {recipe.warmup_epochs} epochs; "
        f"seed {recipe.seed}"
    )
    if recipe.kind != "none":
        print(f"{recipe.kind} distillation from {recipe.teacher}, alpha {recipe.alpha}")
    elif recipe.teacher is not None:
        print(f"labels only; the agreement with {recipe.teacher} is reported")


def _check_output(output: Path, overwrite: bool) -> None:
    """Refuses an output that cannot be written, or that holds something else."""
    parent = next(p for p in (output, *output.absolute().parents) if p.exists())
    if not (parent.is_dir() and os.access(parent, os.W_OK)):
        raise OSError(
            f"`output` must be a folder that can be written: {parent} is not."
        )
    if not output.is_dir() or not any(output.iterdir()):
        return
    check(
        (output / "recipe.json").exists(),
        "`output` must be a new or empty folder, or an earlier run.",
        output=str(output),
    )
    check(
        overwrite or not (output / "last.keras").exists(),
        "`output` holds the weights of an earlier run: choose another folder, or pass "
        "--overwrite (overwrite=True).",
        output=str(output),
    )


def _begin(output: Path, recipe: Recipe, batches: Batches) -> None:
    """Makes the folder of the run; what an earlier one left there is no longer true."""
    output.mkdir(parents=True, exist_ok=True)
    for name in OF_A_RUN:
        (output / name).unlink(missing_ok=True)
    shutil.rmtree(output / "tensorboard", ignore_errors=True)
    (output / "recipe.json").write_text(recipe.to_json())
    (output / "labels.txt").write_text("\n".join(batches.class_names) + "\n")


def _finish(output: Path, scores: dict, saver: SaveStudent) -> None:
    """Draws the curves, writes the result, and prints where everything is."""
    record = {
        "scores": scores,
        "view_format": VIEW_FORMAT,
        "best_epoch": saver.best_epoch + 1,
        "best_accuracy": saver.best,
    }
    (output / "result.json").write_text(json.dumps(record, indent=2) + "\n")
    plot_curves(
        {output.name: read_history(output / "history.csv")}, output / "curves.png"
    )
    print_scores(f"{output}: weights of the last epoch, validation images", scores)
    print(
        f"Saved {output}/last.keras (best.keras: epoch {saver.best_epoch + 1}), "
        "curves.png, history.csv, tensorboard/."
    )
