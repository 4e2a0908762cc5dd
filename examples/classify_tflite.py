"""Classifies images with an exported TFLite file. Needs ai-edge-litert and Pillow.

Usage: python classify_tflite.py saved_models/NAME/NAME.tflite image.png [more images]

A folder stands for all files in it, in alphabetical order. The image is resized and
cropped to the center as in evaluation; the crop ratio is in the certificate beside the
model. One line for each image: file, best label, probability.
"""

import json
import sys
from pathlib import Path

import numpy as np
from ai_edge_litert.interpreter import Interpreter
from PIL import Image, ImageOps


def main() -> None:
    """Reads the command line and prints a line for each image."""
    if len(sys.argv) < 3:
        sys.exit(__doc__)
    model_path = Path(sys.argv[1])
    labels = model_path.with_suffix(".labels.txt").read_text().splitlines()
    certificate = json.loads(model_path.with_suffix(".certificate.json").read_text())
    border = (1 - certificate["crop_ratio"]) / 2
    model = Interpreter(str(model_path)).get_signature_runner("serving_default")
    _, height, width, _ = model.get_input_details()["pixels"]["shape"]
    paths = []
    for argument in map(Path, sys.argv[2:]):
        paths += sorted(argument.iterdir()) if argument.is_dir() else [argument]
    for path in paths:
        image = Image.open(path).convert("RGB")
        image = ImageOps.fit(
            image, (int(width), int(height)), Image.Resampling.BICUBIC, border
        )
        pixels = np.asarray(image, np.float32)[None]  # [0, 255], (1, H, W, 3)
        probabilities = model(pixels=pixels)["probabilities"][0]
        best = int(probabilities.argmax())
        print(f"{path}\t{labels[best]}\t{probabilities[best]:.4f}")


if __name__ == "__main__":
    main()
