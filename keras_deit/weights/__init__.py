"""Checkpoints in, models with weights out."""

from keras_deit.weights.create import create_model
from keras_deit.weights.loader import LoadReport, load_weights

__all__ = ["LoadReport", "create_model", "load_weights"]
