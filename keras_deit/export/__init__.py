"""A model in, artifacts and their proof out."""

from keras_deit.export.edge import tflite
from keras_deit.export.engines import onnx, openvino
from keras_deit.export.serving import saved_model

__all__ = ["onnx", "openvino", "saved_model", "tflite"]
