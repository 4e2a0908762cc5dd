"""Trains a teacher with TensorFlow Addons, which ended with Keras 2, and saves it.

Needs Python 3.9 to 3.11, tensorflow 2.15.1 and tensorflow-addons 0.23, and nothing
else: pip install tensorflow-cpu==2.15.1 tensorflow-addons==0.23.0 "numpy<2"

Usage: python addons_teacher.py images.npz teacher

images.npz holds uint8 pixels (n, 32, 32, 3) and labels (n,): train_pixels,
train_labels, validation_pixels and validation_labels. The folder `teacher` becomes a
SavedModel, float32 pixels (B, 32, 32, 3) in [0, 255] to logits (B, classes);
`teacher.npz` beside it holds its logits on the validation pixels. From this folder a
student learns in an environment of today: `Teacher("teacher")`.
"""

import sys
from pathlib import Path

import numpy as np
import tensorflow as tf
import tensorflow_addons as tfa

BATCH_SIZE = 64
EPOCHS = 8


def main() -> None:
    """Reads the command line, trains, saves and prints the accuracy."""
    if len(sys.argv) != 3:
        sys.exit(__doc__)
    images, folder = np.load(sys.argv[1]), Path(sys.argv[2])
    tf.keras.utils.set_random_seed(0)
    teacher = build(num_classes=int(images["train_labels"].max()) + 1)
    train(teacher, images["train_pixels"], images["train_labels"])
    pixels = images["validation_pixels"].astype("float32")
    logits = teacher.predict(pixels, BATCH_SIZE, verbose=0)
    # The names of the first and of the last layer become those of the signature.
    teacher.save(folder)
    np.savez(folder.with_suffix(".npz"), logits=logits)
    accuracy = np.mean(logits.argmax(axis=-1) == images["validation_labels"])
    print(f"validation accuracy: {accuracy:.4f}")


def build(num_classes: int) -> tf.keras.Model:
    """A residual network: Addons' normalizations, activation, depth and pooling."""
    pixels = tf.keras.Input((32, 32, 3), name="pixels")
    x = tf.keras.layers.Rescaling(1 / 127.5, offset=-1)(pixels)
    for filters, survival_probability in ((16, 1.0), (32, 0.9), (64, 0.8)):
        x = convolve(x, filters, strides=2)
        branch = convolve(convolve(x, filters), filters)
        x = tfa.layers.StochasticDepth(survival_probability)([x, branch])
    x = tfa.layers.AdaptiveAveragePooling2D(1)(x)
    x = tf.keras.layers.Flatten()(x)
    logits = tf.keras.layers.Dense(num_classes, name="logits")(x)
    return tf.keras.Model(pixels, logits)


def convolve(x, filters: int, strides: int = 1):
    """A weight-normalized convolution, group normalization and Mish."""
    convolution = tf.keras.layers.Conv2D(filters, 3, strides, padding="same")
    x = tfa.layers.WeightNormalization(convolution, data_init=False)(x)
    x = tfa.layers.GroupNormalization(groups=4)(x)
    return tf.keras.layers.Activation(tfa.activations.mish)(x)


def train(model: tf.keras.Model, pixels: np.ndarray, labels: np.ndarray) -> None:
    """LAMB inside Lookahead, under a cosine."""
    steps = EPOCHS * -(-len(pixels) // BATCH_SIZE)
    rate = tf.keras.optimizers.schedules.CosineDecay(1e-2, steps)
    model.compile(
        tfa.optimizers.Lookahead(tfa.optimizers.LAMB(rate)),
        tf.keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        metrics=["accuracy"],
    )
    model.fit(pixels.astype("float32"), labels, BATCH_SIZE, EPOCHS, verbose=2)


if __name__ == "__main__":
    main()
