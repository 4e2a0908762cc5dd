from pathlib import Path

import numpy as np
import pytest
from PIL import Image


@pytest.fixture(scope="session")
def shared_data(shared):
    """The folder of real data for experiments."""
    return shared("data")


@pytest.fixture(scope="session")
def photographs():
    """The paths of the two photographs that come with scikit-learn, 427 x 640."""
    from sklearn import datasets

    folder = Path(datasets.__file__).parent / "images"
    return [folder / "china.jpg", folder / "flower.jpg"]


@pytest.fixture
def write_images():
    """Writes small noisy images, `write_images(folder, count)`."""

    def write(folder, count, suffix=".png", size=(6, 5)):
        folder.mkdir(parents=True, exist_ok=True)
        random = np.random.default_rng(sum(map(ord, str(folder))))
        for index in range(count):
            pixels = random.integers(0, 256, (*size, 3), np.uint8)
            Image.fromarray(pixels).save(folder / f"{index:02}{suffix}")

    return write
