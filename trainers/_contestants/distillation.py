"""A training step with one kind of teacher, on one core; `worker.py` says how."""

import os
from functools import partial
from pathlib import Path

PACKAGES = ("tensorflow", "keras")
PATH = ("step",)
NUM_CLASSES = 1000
NUM_BATCHES = 16  # in memory, and steps of an epoch of the cache
KIND = "hard"  # of distillation, where there is a teacher


def tasks(
    folder: str, student: str, teacher: str, batch_size: int, teaching: str | int
) -> dict:
    """The one task, a training step.

    The batches are the same whoever teaches, and so are the first weights.

    Args:
        folder: Where the cache is made, if there is one.
        student: The variant that is trained.
        teacher: The variant that teaches, if it is live.
        batch_size: Images in a step.
        teaching: "none", "live", or what a cache keeps of the logits: "all", "hard" or
            their number.
    """
    os.environ["CUDA_VISIBLE_DEVICES"] = "-1"  # before TensorFlow looks for them
    import tensorflow as tf

    import keras_deit.distillation  # noqa: F401, not in the fork

    tf.config.threading.set_intra_op_parallelism_threads(1)
    tf.config.threading.set_inter_op_parallelism_threads(1)
    arguments = (Path(folder), student, teacher, batch_size, teaching)
    return {"step": partial(training_step, *arguments)}


def training_step(
    folder: Path, student: str, teacher: str, batch_size: int, teaching: str | int
):
    """Prepares the step: `fit`'s own, of the recipes' optimizer; see `tasks`."""
    distiller, batches = _parts(folder, student, teacher, batch_size, teaching)
    distiller.make_train_function()
    iterator = iter(batches)

    def step():
        distiller.train_function(iterator)
        return batch_size

    return step


def _parts(folder, student, teacher, batch_size, teaching):
    """The compiled `Distiller`, and endless batches with what it is taught by."""
    import keras
    import tensorflow as tf

    from keras_deit import Distiller, Teacher, create_model
    from keras_deit.models.inference import input_size
    from keras_deit.training.optimizers import make_optimizer
    from trainers.recipes._papers import DEIT

    keras.utils.set_random_seed(0)
    pupil = create_model(student, num_classes=NUM_CLASSES)
    with_ids = _batches(input_size(pupil), batch_size)
    batches = with_ids.map(_without_ids).prefetch(tf.data.AUTOTUNE)
    if teaching == "none":
        taught_by = None
    elif teaching == "live":
        taught_by = Teacher(create_model(teacher, num_classes=NUM_CLASSES))
    else:
        _write_cache(folder, with_ids, batch_size, teaching)
        taught_by = Teacher(folder)
        batches = taught_by.cache.join(with_ids.prefetch(tf.data.AUTOTUNE))
    distiller = Distiller(pupil, taught_by, "none" if taught_by is None else KIND)
    distiller.compile(make_optimizer(pupil, DEIT, DEIT.min_learning_rate))
    distiller.optimizer.build(pupil.trainable_weights)
    return distiller, batches


def _batches(image_size, batch_size):
    """Endless batches as `training_batches` makes them, with ids, out of memory."""
    import numpy as np
    import tensorflow as tf

    random = np.random.default_rng(0)
    shape = (NUM_BATCHES, batch_size)
    labels = random.dirichlet(np.ones(NUM_CLASSES), shape).astype(np.float32)
    y = {"label": labels, "id": random.integers(0, 2**31, shape)}
    pixels = random.integers(0, 256, (*shape, *image_size, 3), np.uint8)
    weights = np.ones(shape, np.float32)
    return tf.data.Dataset.from_tensor_slices((pixels, y, weights)).repeat()


def _without_ids(pixels, y, weights):
    return pixels, y["label"], weights


def _write_cache(folder, batches, batch_size, keep_logits):
    """Makes a cache of one epoch, of random logits."""
    import numpy as np

    from keras_deit.distillation.cache_writer import CacheWriter

    writer = CacheWriter(
        folder,
        {
            "views": {},
            "dataset": "random",
            "teacher": {"digest": "random", "name": "random"},
            "keep_logits": keep_logits,
            "temperature": 1.0,
            "class_names": [str(label) for label in range(NUM_CLASSES)],
            "batch_size": batch_size,
            "steps_per_epoch": NUM_BATCHES,
            "shard_steps": NUM_BATCHES,
        },
    )
    random = np.random.default_rng(1)
    (shard,) = writer.missing(1)
    with writer.claim(shard) as file:
        for _, y, _ in batches.take(NUM_BATCHES):
            logits = random.normal(size=(batch_size, NUM_CLASSES)).astype(np.float32)
            file.write(y["id"].numpy(), logits)
