"""Classifies images with an exported TFLite file. Needs ai-edge-litert and Pillow.

Usage: python classify_tflite.py saved_models/NAME/NAME.tflite image.png [more images]

A folder stands for all files in it, in alphabetical order. The image is resized and
cropped to the center as in evaluation; the crop ratio is in the certificate beside the
model. If the model has a dial, --signature=keep_70 turns it; the default is
serving_default. One line for each image: file, best label, probability.
"""

import json
import os
import sys
from pathlib import Path

import numpy as np
from ai_edge_litert.interpreter import Interpreter
from PIL import Image, ImageOps

OPTION = "--signature="


def main() -> None:
    """Reads the command line and prints a line for each image."""
    arguments = [a for a in sys.argv[1:] if not a.startswith(OPTION)]
    options = [a.removeprefix(OPTION) for a in sys.argv[1:] if a.startswith(OPTION)]
    if len(arguments) < 2:
        sys.exit(__doc__)
    signature = options[-1] if options else "serving_default"
    model_path = Path(arguments[0])
    labels = model_path.with_suffix(".labels.txt").read_text().splitlines()
    certificate = json.loads(model_path.with_suffix(".certificate.json").read_text())
    border = (1 - certificate["preprocessing"]["crop_ratio"]) / 2
    interpreter = Interpreter(str(model_path), num_threads=os.cpu_count())
    signatures = list(interpreter.get_signature_list())
    if signature not in signatures:
        sys.exit(f"The signature must be one of {signatures}. Received: {signature!r}.")
    model = interpreter.get_signature_runner(signature)
    pixels = model.get_input_details()["pixels"]
    _, height, width, _ = pixels["shape"]
    paths = []
    for argument in map(Path, arguments[1:]):
        paths += sorted(argument.iterdir()) if argument.is_dir() else [argument]
    for path in paths:
        image = Image.open(path).convert("RGB")
        image = ImageOps.fit(
            image, (int(width), int(height)), Image.Resampling.BICUBIC, border
        )
        image = np.asarray(image, pixels["dtype"])[None]  # [0, 255], (1, H, W, 3)
        probabilities = model(pixels=image)["probabilities"][0]
        best = int(probabilities.argmax())
        print(f"{path}\t{labels[best]}\t{probabilities[best]:.4f}")


if __name__ == "__main__":
    main()
