"""Keras and SavedModels, one batch after another; `worker.py` says how it is asked."""

import os
from functools import partial

PACKAGES = ("tensorflow", "keras")
PATH = ()


def tasks(how: str, cases: dict, num_threads: int) -> dict:
    """The tasks, one for each case.

    Args:
        how: "predict"; "function" (a compiled `tf.function` of the model);
            "compiled_float32" or "compiled_bfloat16" (`keras_deit.compiled`); or
            "saved_model" (its signature `pixels`).
        cases: By name of the task, what `trainers/_benchmark_inference.py` says.
        num_threads: How many threads work.
    """
    os.environ["CUDA_VISIBLE_DEVICES"] = "-1"  # before TensorFlow looks for them
    import tensorflow as tf

    import keras_deit  # noqa: F401, its layers are in the files

    tf.config.threading.set_intra_op_parallelism_threads(num_threads)
    tf.config.threading.set_inter_op_parallelism_threads(1)
    return {name: partial(STEPS[how], case) for name, case in cases.items()}


def _predict(case: dict):
    import keras
    import numpy as np

    from trainers._contestants.answers import checked_step, pixels_of

    model = keras.saving.load_model(case["file"])
    predict = partial(model.predict, batch_size=case["batch_size"], verbose=0)
    return checked_step(predict, pixels_of(case).astype(np.float32), case)


def _function(case: dict):
    import keras
    import tensorflow as tf

    from trainers._contestants.answers import checked_step, pixels_of

    model = keras.saving.load_model(case["file"])
    function = tf.function(lambda pixels: model(pixels, training=False))
    return checked_step(function, tf.cast(pixels_of(case), tf.float32), case)


def _compiled(case: dict, precision: str):
    import keras
    import tensorflow as tf

    from keras_deit import compiled
    from trainers._contestants.answers import checked_step, pixels_of

    function = compiled(keras.saving.load_model(case["file"]), precision=precision)
    return checked_step(function, tf.constant(pixels_of(case)), case)


def _saved_model(case: dict):
    import tensorflow as tf

    from trainers._contestants.answers import checked_step, pixels_of

    artifact = tf.saved_model.load(case["file"])

    def answer(pixels):
        return artifact.signatures["pixels"](pixels=pixels)["logits"]

    return checked_step(answer, tf.constant(pixels_of(case)), case)


STEPS = {
    "predict": _predict,
    "function": _function,
    "compiled_float32": partial(_compiled, precision="float32"),
    "compiled_bfloat16": partial(_compiled, precision="bfloat16"),
    "saved_model": _saved_model,
}
