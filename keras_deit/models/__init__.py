"""Numbers in, models out."""

from keras_deit.models.complexity import count_macs, count_parameters
from keras_deit.models.inference import inference_model
from keras_deit.models.preprocessing import Preprocessing
from keras_deit.models.regnet import RegNetConfig, regnet, regnet_stages
from keras_deit.models.variants import VARIANTS, list_variants
from keras_deit.models.vision_transformer import ViTConfig, vision_transformer

__all__ = [
    "VARIANTS",
    "Preprocessing",
    "RegNetConfig",
    "ViTConfig",
    "count_macs",
    "count_parameters",
    "inference_model",
    "list_variants",
    "regnet",
    "regnet_stages",
    "vision_transformer",
]
