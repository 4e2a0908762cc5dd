"""Classifies images with an exported SavedModel. Needs TensorFlow and nothing else.

Usage: python classify_saved_model.py saved_models/NAME/1 image.jpg [more images]

A folder stands for all files in it, in alphabetical order. One line for each image:
file, best label, probability. In place of the label of a file that is no image, or too
large, stands why there is none.
"""

import sys
from pathlib import Path

import tensorflow as tf

BATCH_SIZE = 64


def main() -> None:
    """Reads the command line and prints a line for each image."""
    if len(sys.argv) < 3:
        sys.exit(__doc__)
    model = tf.saved_model.load(sys.argv[1]).signatures["serving_default"]
    paths = []
    for argument in map(Path, sys.argv[2:]):
        paths += sorted(argument.iterdir()) if argument.is_dir() else [argument]
    for start in range(0, len(paths), BATCH_SIZE):
        batch = paths[start : start + BATCH_SIZE]
        answer = model(image_bytes=tf.constant([path.read_bytes() for path in batch]))
        answer = {name: tensor.numpy() for name, tensor in answer.items()}
        for i, path in enumerate(batch):
            status, score = answer["status"][i], answer["top_k_scores"][i, 0]
            label = answer["top_k_labels"][i, 0] if status == b"ok" else status
            print(f"{path}\t{label.decode()}\t{score:.4f}")


if __name__ == "__main__":
    main()
