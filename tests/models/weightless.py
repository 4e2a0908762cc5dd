"""Models of any size, built at once and without memory, to look at their shapes."""

from contextlib import contextmanager

import keras
import pytest

from keras_deit.models.factory import build_model

RANDOM = ("RandomNormal", "VarianceScaling", "Orthogonal")


@contextmanager
def weightless():
    """Gives a `build_model` whose weights are zeros, made whenever they are read."""

    def build(*arguments, **options):
        with keras.StatelessScope(initialize_variables=False):
            return build_model(*arguments, **options)

    zeros = keras.initializers.Zeros.__call__
    with pytest.MonkeyPatch.context() as patch:
        for initializer in RANDOM:
            patch.setattr(getattr(keras.initializers, initializer), "__call__", zeros)
        yield build
