import os
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import keras
import pytest
import tensorflow as tf

# Two replicas on one processor, for the tests of distribution: before anything runs.
tf.config.set_logical_device_configuration(
    tf.config.list_physical_devices("CPU")[0],
    [tf.config.LogicalDeviceConfiguration()] * 2,
)


@pytest.fixture(autouse=True)
def seeded():
    keras.utils.set_random_seed(0)


@pytest.fixture(scope="session")
def two_replicas():
    """The strategy of all tests: two in a process count their sums alike, and clash."""
    return tf.distribute.MirroredStrategy(["CPU:0", "CPU:1"])


@pytest.fixture(scope="session")
def shared():
    """`shared(name)`: a folder of material that is no part of the repository."""
    root = Path(__file__).parents[1].parent / "shared"
    root = Path(os.environ.get("KERAS_DEIT_SHARED", root))

    def folder(name):
        if not (root / name).is_dir():
            pytest.skip(f"there is no {name!r} in {root}: set KERAS_DEIT_SHARED")
        return root / name

    return folder
