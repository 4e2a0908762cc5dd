"""Files in, batches out."""

from keras_deit.data.augmentation import Augmentation
from keras_deit.data.pipeline import Batches, evaluation_batches, load, training_batches
from keras_deit.data.source import Source
from keras_deit.data.sources import load_source

__all__ = [
    "Augmentation",
    "Batches",
    "Source",
    "evaluation_batches",
    "load",
    "load_source",
    "training_batches",
]
