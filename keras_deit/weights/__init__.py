"""Checkpoints in and out, models with weights out."""

from keras_deit.weights.create import create_model
from keras_deit.weights.loader import LoadReport, load_weights
from keras_deit.weights.saver import save_weights

__all__ = ["LoadReport", "create_model", "load_weights", "save_weights"]
