"""What a recipe is made of: images, student, teacher, optimizer."""

import functools
from collections.abc import Callable
from dataclasses import dataclass, replace

import keras
import tensorflow as tf

from keras_deit._checks import check
from keras_deit.data.pipeline import evaluation_batches, training_batches
from keras_deit.data.source import Source
from keras_deit.data.sources import load_source
from keras_deit.distillation.distiller import Distiller
from keras_deit.distillation.teacher import Teacher
from keras_deit.distillation.teacher_cache import TeacherCache
from keras_deit.models.complexity import count_macs, count_parameters
from keras_deit.models.factory import variant_config
from keras_deit.models.inference import input_size
from keras_deit.models.preprocessing import preprocessing_of
from keras_deit.models.variants import VARIANTS
from keras_deit.training.optimizers import make_optimizer
from keras_deit.training.precision import check_compiler, make_student
from keras_deit.training.recipe import Recipe
from keras_deit.training.schedules import keep_rate_stages, learning_rate_schedule
from keras_deit.training.strategies import distributed
from keras_deit.training.teachers import load_cache, load_teacher, view_size
from keras_deit.training.workers import Workers


@dataclass(frozen=True)
class Parts:
    """What a recipe is made of, ready for `fit`.

    Attributes:
        recipe: What was asked for.
        sources: The training and the validation images.
        distiller: Holds the student and the teacher, compiled.
        schedule: The learning rate, a function of the step.
        stages: (first epoch, keep rate) of the student; empty without one.
        workers: The processes of the run.
        training: Called with an epoch and a step of it, returns the endless batches
            from there on, for all replicas.
        validation: The held-out images that are this worker's, each of all once.
        validation_of_all: The same images, for all replicas.
        steps_per_epoch: Steps in an epoch.
    """

    recipe: Recipe
    sources: tuple[Source, Source]
    distiller: Distiller
    schedule: Callable
    stages: list[tuple[int, float]]
    workers: Workers
    training: Callable[[int, int], tf.data.Dataset | tf.distribute.DistributedDataset]
    validation: tf.data.Dataset
    validation_of_all: tf.data.Dataset | tf.distribute.DistributedDataset
    steps_per_epoch: int

    @property
    def student(self) -> keras.Model:
        """The model that is trained."""
        return self.distiller.student

    @property
    def cache(self) -> TeacherCache | None:
        """What stands in for the teacher, if anything does."""
        return self.distiller.teacher and self.distiller.teacher.cache

    def epoch_of_views(self, epoch: int) -> int:
        """The epoch whose views an epoch has: those of a short cache come again."""
        return epoch if self.cache is None else epoch % self.cache.epochs

    @property
    def teacher_digest(self) -> str | None:
        """Of the teacher or of the cache that stands in for it, if there is one."""
        if self.cache is not None:
            return self.cache.digest_of_epochs(self.recipe.epochs)
        return self.distiller.teacher and self.distiller.teacher.digest

    @property
    def class_names(self) -> tuple[str, ...]:
        """Name of each class, in the order of the labels."""
        return self.sources[0].class_names

    @property
    def parameters(self) -> int:
        """Parameters of the student."""
        return count_parameters(self.student)

    @property
    def macs(self) -> int:
        """Multiply-adds of the student for an image."""
        return count_macs(self.student)


def build(
    recipe: Recipe,
    download: bool = False,
    unreadable: str = "refuse",
    teacher: Teacher | None = None,
    workers: Workers | None = None,
) -> Parts:
    """Makes the parts of a recipe; see `training.train`."""
    workers = workers or Workers(tf.distribute.get_strategy())
    strategy = workers.strategy
    check(
        recipe.kind == "none"
        or bool(teacher or recipe.teacher or recipe.teacher_cache),
        "`teacher` or `teacher_cache` must be there unless `kind` is 'none' (--teacher "
        "on the command line; `train_teacher` makes one).",
        teacher=recipe.teacher,
        kind=recipe.kind,
    )
    replicas = strategy.num_replicas_in_sync
    check(
        recipe.batch_size % (replicas * recipe.accumulate_steps) == 0,
        f"`batch_size` must be a multiple of `accumulate_steps` times the {replicas} "
        "replicas (--devices takes fewer, --strategy=none one).",
        batch_size=recipe.batch_size,
        accumulate_steps=recipe.accumulate_steps,
    )
    keras.utils.set_random_seed(recipe.seed)
    if not workers.is_chief:
        workers.gather("the chief may download")
    sources = tuple(
        load_source(recipe.dataset, split, download, unreadable)
        for split in ("train", "validation")
    )
    if workers.is_chief:
        workers.gather("the others may look")
    # First, so that its weights do not depend on who teaches it.
    with strategy.scope():
        student = make_student(recipe, len(sources[0].class_names))
    teacher = _teacher(recipe, sources[0], teacher, strategy)
    training = _training(recipe, sources[0], teacher, strategy)
    training(0, 0)  # refuses what does not fit before anything is compiled
    steps_per_epoch = sources[0].num_examples // recipe.batch_size
    with strategy.scope():
        distiller = _distiller(recipe, student, teacher)
        schedule = _compile(distiller, recipe, steps_per_epoch)

    def validation(shard, num_shards):
        return evaluation_batches(
            sources[1],
            input_size(student),
            recipe.batch_size,
            preprocessing_of(student).crop_ratio,
            shard,
            num_shards,
        )

    return Parts(
        recipe,
        sources,
        distiller,
        schedule,
        _stages(recipe),
        workers,
        training,
        validation(workers.index, workers.count),
        distributed(strategy, recipe.batch_size, validation),
        steps_per_epoch,
    )


def _teacher(
    recipe: Recipe, source: Source, teacher: Teacher | None, strategy
) -> Teacher | None:
    """The teacher of a recipe, or the cache that stands in for it."""
    if teacher is None and recipe.teacher is not None:
        teacher = load_teacher(recipe, source.class_names, strategy)
    if recipe.teacher_cache is None:
        return teacher
    return load_cache(recipe, source, teacher)


def _training(
    recipe: Recipe, source: Source, teacher: Teacher | None, strategy
) -> Callable:
    cache = None if teacher is None else teacher.cache

    @functools.cache  # to trace the graph of a view takes seconds
    def training(epoch, step):
        def make(shard, num_shards):
            share = {"shard": shard, "num_shards": num_shards}
            if cache is None:
                return batches_of(recipe, source, epoch, step, **share)
            cycle = {"ids": True, "cycle": cache.epochs}
            batches = batches_of(recipe, source, epoch, step, **share, **cycle)
            return cache.join(batches, epoch, step, **share)

        return distributed(strategy, recipe.batch_size, make)

    return training


def batches_of(
    recipe: Recipe, source: Source, epoch: int, step: int, **options
) -> tf.data.Dataset:
    """Makes the training batches of a recipe; see `training_batches`.

    Args:
        recipe: Says what the views are.
        source: The images.
        epoch: Number of the epoch to begin with.
        step: Number of the step of that epoch to begin with.
        **options: `ids`, `cycle`, `shard` and `num_shards`.
    """
    return training_batches(
        source,
        view_size(recipe),
        recipe.batch_size,
        recipe.seed,
        recipe.augmentation,
        recipe.mixing,
        recipe.label_smoothing,
        recipe.repeats,
        first_epoch=epoch,
        first_step=step,
        **options,
    )


def _compile(distiller: Distiller, recipe: Recipe, steps_per_epoch: int) -> Callable:
    """Gives student and teacher their optimizers; returns the student's schedule."""
    check_compiler(recipe, distiller.student, distiller.teacher)
    schedule = learning_rate_schedule(recipe, steps_per_epoch)
    teacher_optimizer = None
    if recipe.train_teacher:
        peak = recipe.teacher_learning_rate or recipe.peak_learning_rate
        theirs = replace(
            recipe,
            learning_rate=peak,
            learning_rate_batch=None,
            warmup_learning_rate=min(peak, recipe.warmup_learning_rate),
            min_learning_rate=min(peak, recipe.min_learning_rate),
            layer_decay=1.0,  # a teacher need not have blocks of ours
        )
        teacher_optimizer = make_optimizer(
            distiller.teacher.model,
            theirs,
            learning_rate_schedule(theirs, steps_per_epoch),
        )
    optimizer = make_optimizer(distiller.student, recipe, schedule)
    distiller.compile(
        optimizer,
        jit_compile=recipe.jit_compile,
        teacher_optimizer=teacher_optimizer,
    )
    # Here, so that a checkpoint finds its variables; for float16 it is wrapped by now.
    distiller.optimizer.build(distiller.student.trainable_weights)
    return schedule


def _distiller(recipe: Recipe, student: keras.Model, teacher) -> Distiller:
    return Distiller(
        student,
        teacher,
        recipe.kind,
        alpha=recipe.alpha,
        temperature=recipe.temperature,
        reduction=recipe.reduction,
        train_teacher=recipe.train_teacher,
        accumulate_steps=recipe.accumulate_steps,
    )


def _stages(recipe: Recipe) -> list[tuple[int, float]]:
    """When the student's keep rate becomes what; empty if it keeps all tokens."""
    keep_rate = 1.0
    if recipe.variant in VARIANTS:
        config = variant_config(recipe.variant, **recipe.model_overrides)
        keep_rate = getattr(getattr(config, "encoder", None), "keep_rate", 1.0)
    if keep_rate < 1:
        return keep_rate_stages(recipe, keep_rate)
    check(
        recipe.keep_rate_start_epoch == recipe.keep_rate_ramp_epochs == 0,
        "`keep_rate_start_epoch` and `keep_rate_ramp_epochs` are for a student that "
        "drops tokens: set `keep_rate` in `model_overrides`.",
        variant=recipe.variant,
        keep_rate=keep_rate,
    )
    return []
