"""KerasHub's DeiT, a compiled function in float32; `worker.py` says how it is asked."""

import os
from functools import partial

PACKAGES = ("keras-hub", "tensorflow", "keras", "numpy")
PATH = ()


def tasks(cases: dict, num_threads: int) -> dict:
    """The tasks, one for each case whose variant is a distilled DeiT.

    Its model has random weights of its own, so that only its speed is compared.

    Args:
        cases: By name of the task, what `trainers/_benchmark_inference.py` says.
        num_threads: How many threads work.
    """
    os.environ["CUDA_VISIBLE_DEVICES"] = "-1"  # before TensorFlow looks for them
    os.environ["KERAS_BACKEND"] = "tensorflow"
    import keras_hub  # noqa: F401, not in the fork
    import tensorflow as tf

    tf.config.threading.set_intra_op_parallelism_threads(num_threads)
    tf.config.threading.set_inter_op_parallelism_threads(1)
    return {
        name: partial(_step, case)
        for name, case in cases.items()
        if case["encoder"] and case["encoder"]["distilled"]
    }


def _step(case: dict):
    import tensorflow as tf

    from trainers._contestants.answers import pixels_of
    from trainers._contestants.keras_hub_model import keras_hub_model

    pixels = tf.cast(pixels_of(case), tf.float32)
    model = keras_hub_model(case["encoder"], case["image_size"])
    function = tf.function(lambda pixels: model(pixels, training=False))

    def step():
        function(pixels)
        return case["batch_size"]

    return step
