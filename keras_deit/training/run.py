"""A run: a recipe in, weights and a record out."""

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stdout
from dataclasses import asdict, dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

import keras
import tensorflow as tf

from keras_deit._checks import check
from keras_deit.data.image_folder import naming_unreadable_images
from keras_deit.distillation.teacher import Teacher
from keras_deit.distillation.teacher_cache import naming_damaged_shards
from keras_deit.training.announcement import announce
from keras_deit.training.checkpoints import FOLDER
from keras_deit.training.evaluation import Evaluator
from keras_deit.training.history import CSV, JSONL, best_row
from keras_deit.training.loop import Loop
from keras_deit.training.parts import Parts, build
from keras_deit.training.recipe import Recipe
from keras_deit.training.report import (
    plot_curves,
    print_scores,
    read_history,
    write_per_class,
    write_views,
)
from keras_deit.training.report_page import write_report
from keras_deit.training.run_folder import (
    FACTS,
    RECIPE,
    RESULT,
    begin,
    can_go_on,
    check_output,
    facts_of,
    held,
    versions,
    write_json,
)
from keras_deit.training.workers import Workers, code_digest, naming_lost_workers


@dataclass(frozen=True)
class Result:
    """What a run came to.

    Attributes:
        directory: Where its files are.
        model: The trained model, with the weights of the last epoch.
        scores: For each head `top1` and `top5` on the validation split, in [0, 1], with
            these weights. (The best epoch is chosen on the same images, so its score
            would flatter.)
        average_scores: The same of the averaged weights; None without an average.
    """

    directory: Path
    model: keras.Model
    scores: dict[str, dict[str, float]]
    average_scores: dict[str, dict[str, float]] | None = None


def train(
    recipe: Recipe,
    output: str | Path,
    overwrite: bool = False,
    download: bool = False,
    unreadable: str = "refuse",
    checkpoint_steps: int = 500,
    force_resume: bool = False,
    teacher: Teacher | None = None,
    strategy: tf.distribute.Strategy | None = None,
) -> Result:
    """Trains a model and leaves a record of it, or goes on where an earlier run died.

    In `output` lie at the end `recipe.json`, `run.json`, `labels.txt`, `history.csv`,
    `history.jsonl`, `tensorboard/`, `views.png`, `curves.png`, `per_class.csv`,
    `report.html`, `last.keras`, `best.keras`, perhaps `average.keras` and
    `teacher.keras`, and `result.json`.

    A run that was interrupted, at whatever moment, goes on from its last checkpoint
    when it is started again: with the same batches, random numbers, optimizer, averages
    and reported numbers as if nothing had happened.

    Under a strategy the replicas share each batch: the run computes what it does on one
    device, but for the last digits of sums, and for the random numbers of the model's
    own layers, which each replica draws for itself. Of several worker processes the
    first, the chief, writes; the folders of the others are not used. When it goes on,
    it sends them what they need.

    Args:
        recipe: What to compute.
        output: Folder of the run. One that died before its first checkpoint is
            replaced.
        overwrite: Whether an earlier run in `output` is replaced, also one that could
            go on.
        download: Whether a dataset of TensorFlow Datasets may be downloaded.
        unreadable: "refuse" or "skip": what to do with image files that cannot be
            decoded.
        checkpoint_steps: Steps from one checkpoint to the next, at least 1.
        force_resume: Whether to go on even if recipe, dataset, teacher or the format of
            the views changed since.
        teacher: In place of the recipe's: what a recipe cannot name, such as a function
            (with a `version`). It must answer in the classes of the dataset.
        strategy: On which devices; see `make_strategy`. None for the one in whose scope
            this is called, or one device.

    Returns:
        The result; its scores are also in `result.json`.

    Raises:
        ValueError: If recipe, dataset and teacher do not fit together, an image is
            unreadable, or `output` holds something else.
        FileNotFoundError: If the dataset, the teacher or the weights cannot be found.
        OSError: If `output` cannot be written.
        RuntimeError: If the loss is not finite, or another worker stopped.
    """
    rule = "`checkpoint_steps` must be at least 1."
    check(checkpoint_steps >= 1, rule, checkpoint_steps=checkpoint_steps)
    workers = Workers(strategy or tf.distribute.get_strategy())
    with naming_lost_workers(workers), _folder_of(workers, Path(output)) as folder:
        if workers.is_chief:
            check_output(folder, overwrite, recipe)
        same = {f"recipe.{name}": value for name, value in asdict(recipe).items()}
        workers.agree(same | versions() | {"code": code_digest()})
        parts = build(recipe, download, unreadable, teacher, workers)
        with (
            naming_unreadable_images(*parts.sources),
            naming_damaged_shards(parts.cache),
            held(folder),
        ):
            facts = facts_of(
                parts.sources, parts.teacher_digest, parts.parameters, parts.macs
            )
            workers.agree(facts)
            resume = can_go_on(folder, recipe, facts, overwrite, force_resume)
            (resume, *_) = workers.gather(resume)
            if resume:
                _send_what_was(workers, folder)
            announcement = announce(parts, resume)
            if not resume:
                begin(folder, recipe, facts | announcement, parts.class_names)
                views = folder / "views.png"
                write_views(*_first_views(parts), parts.class_names, views)
            loop = Loop(parts, folder, checkpoint_steps, resume)
            loop.run()
            result = _finish(parts, folder, loop)
            workers.gather("done")  # nobody leaves while the chief writes
            return result


@contextmanager
def _folder_of(workers: Workers, output: Path) -> Iterator[Path]:
    """The folder of a worker: the chief's is that of the run, and it alone is heard."""
    if workers.is_chief:
        yield output
        return
    print(f"Worker {workers.index} of {workers.count}: worker 0 reports.", flush=True)
    with (
        TemporaryDirectory(prefix="keras-deit-") as folder,
        Path(os.devnull).open("w") as nowhere,
        redirect_stdout(nowhere),
    ):
        yield Path(folder)


def _send_what_was(workers: Workers, folder: Path) -> None:
    """Copies the files that a run goes on with from the chief to the others."""
    checkpoints = (folder / FOLDER).glob("*.safetensors")
    paths = [folder / RECIPE, folder / FACTS, folder / JSONL, *checkpoints]
    names = [str(p.relative_to(folder)) for p in paths if p.is_file()]
    (names, *_) = workers.gather(names)
    workers.copy(folder, names)


def _first_views(parts: Parts):
    """The first pictures of this process, and their labels."""
    strategy = parts.workers.strategy
    batch = next(iter(parts.training(0, 0)))
    images, y, _ = (strategy.experimental_local_results(part)[0] for part in batch)
    labels = y if parts.cache is None else y["label"]
    return images.numpy(), labels.numpy()


def _finish(parts: Parts, output: Path, loop: Loop) -> Result:
    """Evaluates, draws, writes the result, and prints where everything is."""
    evaluation = Evaluator(parts.student, parts.workers.gather)(parts.validation)
    average = loop.average and loop.average.evaluator(parts.validation).scores
    write_per_class(evaluation.confusion, parts.class_names, output / "per_class.csv")
    best = best_row(loop.history.rows, loop.monitor)
    record = {
        "scores": evaluation.scores,
        **({"average_scores": average} if average else {}),
        "best_epoch": best["epoch"] + 1,
        "best_accuracy": best[loop.monitor],
        "epochs": len(loop.history.rows),
        "graphs": parts.distiller.num_traces,
    }
    write_json(output / RESULT, record)
    plot_curves({output.name: read_history(output / CSV)}, output / "curves.png")
    write_report([output], output / "report.html")
    loop.history.close()
    shutil.rmtree(output / FOLDER, ignore_errors=True)
    title = f"{output}: weights of the last epoch, validation images"
    print_scores(title, evaluation.scores)
    if parts.recipe.train_teacher:
        accuracy = loop.history.rows[-1]["val_teacher_accuracy"]
        print(f"The teacher, trained as well (teacher.keras): {accuracy:.2%} top-1")
    if average:
        print_scores("The same with the averaged weights (average.keras)", average)
    print(
        f"The training step was traced {parts.distiller.num_traces} times.\n"
        f"Saved {output}/last.keras (best.keras: epoch {best['epoch'] + 1}), "
        "report.html, history.csv, tensorboard/."
    )
    return Result(output, parts.student, evaluation.scores, average)
