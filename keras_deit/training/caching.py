"""Asking a teacher once about the views that students will see."""

import itertools
import math
import time
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path

import tensorflow as tf

from keras_deit._checks import check
from keras_deit.data.image_folder import naming_unreadable_images
from keras_deit.data.pipeline import evaluation_batches
from keras_deit.data.source import Source
from keras_deit.data.sources import load_source
from keras_deit.distillation.cache_index import Shard
from keras_deit.distillation.cache_writer import CacheWriter
from keras_deit.distillation.logit_codec import LogitCodec
from keras_deit.distillation.losses import soft_distillation
from keras_deit.distillation.teacher import Teacher
from keras_deit.models.preprocessing import preprocessing_of
from keras_deit.training.announcement import TEACHER_IMAGES
from keras_deit.training.callbacks import duration
from keras_deit.training.evaluation import compare
from keras_deit.training.parts import batches_of
from keras_deit.training.recipe import Recipe
from keras_deit.training.report import print_table
from keras_deit.training.teachers import load_teacher, view_size, views_of
from keras_deit.version import __version__

SHARD_VIEWS = 32_768  # about so many views are lost when a process is killed
TYPICAL = (("CIFAR-10", 50_000, 10), ("ImageNet", 1_281_167, 1_000))
_SECONDS_BETWEEN_LINES = 20
USUAL = ("hard", 16, "all")  # kinds of caches whose sizes are shown


@dataclass(frozen=True)
class _Job:
    """What is asked about what.

    Attributes:
        recipe: Says what the views are.
        source: The training images.
        teacher: Who is asked.
        codec: How the answers are stored.
        epochs: How many epochs of views.
    """

    recipe: Recipe
    source: Source
    teacher: Teacher
    codec: LogitCodec
    epochs: int

    @property
    def steps_per_epoch(self) -> int:
        """Steps of an epoch."""
        return self.source.num_examples // self.recipe.batch_size

    @property
    def teacher_name(self) -> str:
        """What the teacher is called, for people."""
        return str(self.recipe.teacher or self.teacher.version or self.teacher.kind)

    def header(self) -> dict:
        """What the cache is of; see `CacheWriter`."""
        recipe = self.recipe
        return {
            "views": views_of(recipe),
            "dataset": self.source.digest,
            "teacher": {"digest": self.teacher.digest, "name": self.teacher_name},
            "keep_logits": self.codec.keep,
            "temperature": self.codec.temperature,
            "class_names": list(self.source.class_names),
            "batch_size": recipe.batch_size,
            "steps_per_epoch": self.steps_per_epoch,
            "shard_steps": min(
                self.steps_per_epoch, -(-SHARD_VIEWS // recipe.batch_size)
            ),
        }


def cache_teacher(
    recipe: Recipe,
    output: str | Path,
    epochs: int | None = None,
    keep_logits: str | int = "all",
    download: bool = False,
    unreadable: str = "refuse",
    teacher: Teacher | None = None,
) -> Path:
    """Writes down what a teacher says of the training views of a recipe.

    What is written depends on the recipe's seed, size, augmentation, mixing, batch size
    and repeats, on the dataset and on the teacher: students, optimizers and lengths may
    change. A job that died goes on when it is started again; started several times at
    once, the processes share the work; started with more epochs, the cache grows.

    Args:
        recipe: Says what the views are, and names the teacher.
        output: Folder of the cache.
        epochs: Epochs of views; None takes the recipe's. A student that is trained for
            more sees these again.
        keep_logits: What is kept of the logits of a view: "all", in float32; a number,
            the so many largest in half precision, and the rest evenly spread; "hard",
            the best class alone.
        download: Whether a dataset of TensorFlow Datasets may be downloaded.
        unreadable: "refuse" or "skip": what to do with image files that cannot be
            decoded.
        teacher: In place of the recipe's: what a recipe cannot name, such as a function
            (with a `version`). It must answer in the classes of the dataset.

    Returns:
        The folder.

    Raises:
        ValueError: If recipe, dataset and teacher do not fit together, or `output` is a
            cache of something else.
        FileNotFoundError: If the dataset or the teacher cannot be found.
        OSError: If `output` cannot be written; whole epochs before stay good.
    """
    rule = "`epochs` must be at least 1."
    check(epochs is None or epochs >= 1, rule, epochs=epochs)
    check(
        (teacher or recipe.teacher) is not None and not recipe.train_teacher,
        "To be cached, a teacher must be there, and must not learn.",
        teacher=recipe.teacher,
        train_teacher=recipe.train_teacher,
    )
    source, validation = (
        load_source(recipe.dataset, split, download, unreadable)
        for split in ("train", "validation")
    )
    by_number = isinstance(keep_logits, int)
    temperature = recipe.temperature if by_number else 1.0
    codec = LogitCodec(keep_logits, len(source.class_names), temperature)
    teacher = teacher or load_teacher(recipe, source.class_names)
    job = _Job(recipe, source, teacher, codec, epochs or recipe.epochs)
    _announce(job, Path(output))
    with naming_unreadable_images(source, validation):
        writer = CacheWriter(output, job.header())
        if "teacher_accuracy" not in writer.facts:
            writer = CacheWriter(output, job.header(), _facts(job, validation))
        _ask(job, writer)
    return Path(output)


def _announce(job: _Job, output: Path) -> None:
    """Prints what is going to be made, and what it takes."""
    recipe, classes = job.recipe, len(job.source.class_names)
    views = job.steps_per_epoch * recipe.batch_size
    print(
        f"{job.teacher_name}: {classes} classes\n{job.source.name}: {job.epochs} "
        f"epochs of {job.steps_per_epoch:,} steps of {recipe.batch_size} views, "
        f"seed {recipe.seed}"
    )
    kinds = [job.codec.keep, *(keep for keep in USUAL if keep != job.codec.keep)]
    rows = []
    for name, count, num_classes in ((job.source.name, views, classes), *TYPICAL):
        for keep in kinds if name == job.source.name else USUAL:
            if isinstance(keep, int) and keep >= num_classes:
                continue
            size = LogitCodec(keep, num_classes).bytes_per_view
            epoch = _megabytes(size * count)
            whole = _megabytes(size * count * job.epochs)
            mark = " *" if name == job.source.name and keep == job.codec.keep else ""
            rows.append((f"{name}{mark}", str(keep), f"{size:,}", epoch, whole))
    columns = ("views of", "keep_logits", "bytes a view", "an epoch", "all epochs")
    print_table(f"Size of the cache (*: {output})", columns, rows)


def _megabytes(size: int) -> str:
    return f"{size / 1e6:,.1f} MB" if size < 1e9 else f"{size / 1e9:,.1f} GB"


def _facts(job: _Job, validation: Source) -> dict:
    """How good the teacher is, and what made the cache."""
    size, crop_ratio = view_size(job.recipe), 1.0
    if job.teacher.model is not None:
        crop_ratio = preprocessing_of(job.teacher.model).crop_ratio
    batches = evaluation_batches(validation, size, job.recipe.batch_size, crop_ratio)
    batches = batches.take(math.ceil(TEACHER_IMAGES / job.recipe.batch_size))
    accuracy, _ = compare(job.teacher, None, batches)
    print(
        f"The teacher is right on {accuracy:.2%} of up to {TEACHER_IMAGES:,} "
        "validation images.",
        flush=True,
    )
    versions = {name: version(name) for name in ("tensorflow", "keras")}
    return {
        "teacher_accuracy": accuracy,
        "divergence": _divergence(job, next(iter(batches))[0]),
        "versions": {"keras_deit": __version__, **versions},
    }


def _divergence(job: _Job, pixels) -> float:
    """What is lost where not all logits are kept, at the recipe's temperature."""
    codec = job.codec
    if codec.keep in ("all", "hard"):
        return 0.0  # the soft loss needs the former, and is refused the latter
    logits = job.teacher(pixels)
    kept = codec.decode(tf.constant(codec.encode(logits.numpy())), len(logits))
    lost, whole = (
        float(tf.reduce_mean(soft_distillation(other, logits, codec.temperature)))
        / codec.temperature**2
        for other in (kept, tf.zeros_like(logits))
    )
    print(
        f"With {codec.keep} of {codec.num_classes:,} logits the Kullback-Leibler "
        f"divergence from all of them is {lost:.4f}, that of even odds {whole:.4f} "
        f"(temperature {codec.temperature:g}, mean of {len(logits)} images)."
    )
    return lost


def _ask(job: _Job, writer: CacheWriter) -> None:
    """Makes the shards that are missing, but for those that others are at."""
    ask = tf.function(job.teacher, autograph=False)
    missing = writer.missing(job.epochs)
    progress = _Progress(job, sum(shard.steps for shard in missing))
    batches, position = None, None
    for shard in missing:
        with writer.claim(shard) as file:
            if file is None:
                progress.leave(shard)
                continue
            if position != (shard.epoch, shard.first_step):  # else they go on
                batches = batches_of(
                    job.recipe, job.source, shard.epoch, shard.first_step, ids=True
                )
                batches = iter(batches)
            for pixels, y, _ in itertools.islice(batches, shard.steps):
                file.write(y["id"].numpy(), ask(pixels).numpy())
                progress.step(shard)
        end = shard.first_step + shard.steps
        is_last = end == job.steps_per_epoch
        position = (shard.epoch + 1, 0) if is_last else (shard.epoch, end)
    _print_end(job, writer, progress.left_out)


class _Progress:
    """Prints a line from time to time: where it is, how fast, and what is left."""

    def __init__(self, job: _Job, steps: int):
        self._job = job
        self._steps = steps
        self._done = 0
        self._start = self._last = time.monotonic()
        self.left_out = 0

    def leave(self, shard: Shard) -> None:
        """Notes a shard that another process is at."""
        self._steps -= shard.steps
        self.left_out += 1

    def step(self, shard: Shard) -> None:
        """Notes a step of a shard."""
        self._done += 1
        now = time.monotonic()
        if self._done < self._steps and now - self._last < _SECONDS_BETWEEN_LINES:
            return
        self._last, seconds = now, now - self._start
        print(
            f"Epoch {shard.epoch + 1} of {self._job.epochs}: {self._done:,} of "
            f"{self._steps:,} steps, "
            f"{self._done * self._job.recipe.batch_size / seconds:,.0f} views/s, "
            f"{duration(seconds / self._done * (self._steps - self._done))} left",
            flush=True,
        )


def _print_end(job: _Job, writer: CacheWriter, left_out: int) -> None:
    """Says what the cache has now, and how to train with it."""
    if left_out:
        print(f"{left_out} shards were left to other processes.")
    missing = writer.missing(job.epochs)
    epochs = min((shard.epoch for shard in missing), default=job.epochs)
    size = sum(file.stat().st_size for file in writer.path.glob("*.tfrecord"))
    print(
        f"{writer.path} has {epochs} whole epochs, {_megabytes(size)}. To learn from "
        f"it, give `train` this recipe and --teacher_cache={writer.path}"
    )
