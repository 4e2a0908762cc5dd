import numpy as np
import pytest

from keras_deit.models.factory import build_model
from keras_deit.models.preprocessing import Preprocessing


def build(name, num_classes, **overrides):
    """A small model whose logits lie well apart."""
    model = build_model(
        name, num_classes, depth=1, embed_dim=16, num_heads=2, **overrides
    )
    random = np.random.default_rng(0)
    for weight in model.weights:
        if "_head/" in weight.path:
            weight.assign(random.normal(size=weight.shape))
    return model


@pytest.fixture(scope="session")
def model():
    """Two heads for seven classes, at a size that is not square, with a crop."""
    preprocessing = Preprocessing((0.4, 0.5, 0.6), (0.2, 0.3, 0.4), crop_ratio=0.8)
    return build(
        "deit_micro_distilled_patch4_32",
        7,
        image_size=(48, 40),
        preprocessing=preprocessing,
    )


@pytest.fixture(scope="session")
def small_model():
    """One head for three classes."""
    return build("deit_micro_patch4_32", 3)


@pytest.fixture(scope="session")
def images():
    """Smooth colors of several sizes."""
    random = np.random.default_rng(0)
    images = []
    for rows, columns in ((60, 80), (90, 50), (48, 40)):
        coarse = random.integers(0, 256, (rows // 10 + 1, columns // 10 + 1, 3))
        image = np.kron(coarse, np.ones((10, 10, 1)))[:rows, :columns]
        images.append(image.astype(np.uint8))
    return images


@pytest.fixture(scope="session")
def labels():
    return ["ant", "bee", "cat", "dog", "eel", "fox", "gnu"]
