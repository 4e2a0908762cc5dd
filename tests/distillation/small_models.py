"""Students and teachers of a layer or two, and a batch for them."""

import keras
import numpy as np

from keras_deit import Distiller

CLASSES = 4


def head(name, size=4):
    """One dense layer on the pixels of a small image."""
    return keras.Sequential(
        [
            keras.Input((size, size, 3)),
            keras.layers.Rescaling(1 / 255),
            keras.layers.Flatten(),
            keras.layers.Dense(CLASSES, name="logits"),
        ],
        name=name,
    )


def two_heads():
    image = keras.Input((4, 4, 3), name="image")
    x = keras.layers.Flatten()(keras.layers.Rescaling(1 / 255)(image))
    outputs = {
        name: keras.layers.Dense(CLASSES, name=f"{name}_head")(x)
        for name in ("class", "distillation")
    }
    return keras.Model(image, outputs, name="student")


def batch(count=6, size=4):
    random = np.random.default_rng(1)
    x = random.uniform(0, 255, (count, size, size, 3)).astype("float32")
    return x, random.integers(0, CLASSES, count).astype("int32")


def compiled(*args, optimizer=None, **kwargs):
    distiller = Distiller(*args, **kwargs)
    distiller.compile(optimizer or keras.optimizers.SGD(0.1))
    return distiller
