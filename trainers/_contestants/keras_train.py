"""Our training step, as `fit` makes it; `worker.py` says how it is asked."""

import os
from functools import partial

PACKAGES = ("tensorflow", "keras")
PATH = ()
NUM_BATCHES = 4  # in memory


def tasks(
    recipe: dict, cases: dict, replicas: int, device: str, num_threads: int | None
) -> dict:
    """The tasks, one for each case.

    Args:
        recipe: What differs from the official recipe of DeiT.
        cases: By name of the task, `teacher`, the variant that teaches or None, and
            `feed`: "memory" or, through the whole input of the recipe, "files".
        replicas: How many devices share a batch.
        device: "CPU" or "GPU".
        num_threads: How many threads work; None for as many as TensorFlow likes.
    """
    if device == "CPU":
        os.environ["CUDA_VISIBLE_DEVICES"] = "-1"  # before TensorFlow looks for them
    import tensorflow as tf

    import keras_deit.training.parts  # noqa: F401, not in the fork

    if num_threads is not None:
        tf.config.threading.set_intra_op_parallelism_threads(num_threads)
        # A replica that waits for the others must leave them a thread.
        tf.config.threading.set_inter_op_parallelism_threads(num_threads * replicas)
    return {
        name: partial(training_step, recipe, replicas, device, **case)
        for name, case in cases.items()
    }


def training_step(
    recipe: dict, replicas: int, device: str, teacher: str | None, feed: str
):
    """Prepares the step of a case; it is over when its loss is known."""
    import tensorflow as tf

    if feed == "memory":  # what the pixels went through makes no difference then
        recipe = {**recipe, "rand_augment": None, "erasing": 0.0}
    strategy = _strategy(replicas, device)
    parts = _parts(recipe, teacher, strategy)
    batches = parts.training(0, 0) if feed == "files" else _in_memory(parts, strategy)
    iterator = iter(batches)
    distiller = parts.distiller
    distiller.make_train_function()

    def step():
        float(distiller.train_function(iterator)["loss"])
        return parts.recipe.batch_size

    if device == "GPU":
        memory = tf.config.experimental.get_memory_info
        step.peak_bytes = lambda: memory("GPU:0")["peak"]
    return step


def _strategy(replicas: int, device: str):
    """One device, or several that share a batch."""
    import tensorflow as tf

    from keras_deit.training.strategies import make_strategy

    for gpu in tf.config.list_physical_devices("GPU"):
        # Others wait on it with their memory.
        tf.config.experimental.set_memory_growth(gpu, True)
    if replicas == 1:
        return make_strategy("none")
    devices = [f"{device}:{number}" for number in range(replicas)]
    return make_strategy("mirrored", devices)


def _parts(recipe: dict, teacher: str | None, strategy):
    """What `train` makes of the recipe; the teacher computes as the student does."""
    from dataclasses import replace

    from keras_deit import Teacher, create_model
    from keras_deit.training.parts import build
    from keras_deit.training.workers import Workers
    from trainers.recipes._papers import DEIT, HARD

    # The rate of a batch far below the papers' would be refused.
    recipe = {**recipe, "learning_rate_batch": None, **(HARD if teacher else {})}
    recipe = replace(DEIT, **recipe)
    if teacher is not None:
        with strategy.scope():
            teacher = Teacher(create_model(teacher, dtype=recipe.precision))
    return build(recipe, teacher=teacher, workers=Workers(strategy))


def _in_memory(parts, strategy):
    """The first batches of a run again and again, made once."""
    import tensorflow as tf

    from keras_deit.training.parts import batches_of
    from keras_deit.training.strategies import distributed

    def make(shard, num_shards):
        share = {"shard": shard, "num_shards": num_shards}
        batches = batches_of(parts.recipe, parts.sources[0], 0, 0, **share)
        few = batches.take(NUM_BATCHES).batch(NUM_BATCHES).get_single_element()
        again = tf.data.Dataset.from_tensor_slices(few).repeat()
        return again.prefetch(tf.data.AUTOTUNE)

    return distributed(strategy, parts.recipe.batch_size, make)
