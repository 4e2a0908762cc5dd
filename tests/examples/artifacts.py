"""A small SavedModel as it is served, and files to ask it about."""

import numpy as np
from PIL import Image

from keras_deit import create_model
from keras_deit.export.serving import saved_model
from tests.data.pictures import smooth

LABELS = ("ant", "bee", "cat", "dog", "Käfer")


def served_model(base):
    """Exports a model whose classes differ from image to image; returns its folder."""
    size = {"depth": 3, "embed_dim": 16, "num_heads": 2}
    model = create_model("deit_micro_patch4_32", num_classes=len(LABELS), **size)
    random = np.random.default_rng(2)
    for weight in model.weights:
        if weight.path.endswith("kernel"):
            weight.assign(random.normal(scale=0.6, size=weight.shape))
    images = [smooth(40, 48), smooth(50, 32)]
    return saved_model(model, base, LABELS, images, keep_rates=[0.5], verbose=False)


def write_files(folder):
    """Three images that can be seen and, in the middle, a text; returns their paths."""
    picture = smooth(60, 80)
    paths = [folder / name for name in ("a.jpg", "text.png", "b.png", "c.gif")]
    images = (picture, None, 255 - picture, picture[:, ::-1])
    for path, image in zip(paths, images, strict=True):
        if image is None:
            path.write_text("This is no image.")
        else:
            Image.fromarray(image).save(path)
    return paths


def rows_of(answer, paths):
    """What a client prints of the answer of a signature."""
    answer = {name: np.asarray(tensor) for name, tensor in answer.items()}
    return [
        f"{path}\t{answer['status'][i].decode()}\t"
        f"{answer['top_k_labels'][i, 0].decode()}\t{answer['top_k_scores'][i, 0]:.4f}"
        for i, path in enumerate(paths)
    ]
