"""keras_deit: Vision Transformers that learn from a convolutional teacher.

Models need only Keras and NumPy. What needs TensorFlow (`Distiller`, `Teacher`,
`compiled`, `data`, `export`, `training`) is imported when it is first used.
"""

from importlib import import_module

from keras_deit.models.complexity import count_macs, count_parameters
from keras_deit.models.inference import inference_model
from keras_deit.models.reorganization import with_keep_rate, with_kept_patches
from keras_deit.models.variants import list_variants
from keras_deit.version import __version__
from keras_deit.weights.create import create_model
from keras_deit.weights.loader import load_weights
from keras_deit.weights.saver import save_weights

__all__ = [
    "Distiller",
    "Teacher",
    "__version__",
    "compiled",
    "count_macs",
    "count_parameters",
    "create_model",
    "data",
    "export",
    "inference_model",
    "list_variants",
    "load_weights",
    "save_weights",
    "training",
    "with_keep_rate",
    "with_kept_patches",
]

_TENSORFLOW_ROOMS = ("data", "distillation", "training", "export")
_TENSORFLOW_NAMES = {
    "Distiller": "distillation",
    "Teacher": "distillation",
    "compiled": "training.compiled",
}


def __getattr__(name: str):
    """Imports a room that needs TensorFlow, or a name of it, at its first use."""
    if name in _TENSORFLOW_ROOMS:
        return import_module(f"keras_deit.{name}")
    if name in _TENSORFLOW_NAMES:
        return getattr(import_module(f"keras_deit.{_TENSORFLOW_NAMES[name]}"), name)
    raise AttributeError(f"module 'keras_deit' has no attribute {name!r}")
