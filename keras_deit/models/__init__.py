"""Numbers in, models out."""

from keras_deit.models.complexity import count_macs, count_parameters
from keras_deit.models.encoder import EncoderConfig
from keras_deit.models.explanation import explanation_model
from keras_deit.models.inference import inference_model
from keras_deit.models.preprocessing import Preprocessing
from keras_deit.models.regnet import RegNetConfig, regnet, regnet_stages
from keras_deit.models.reorganization import with_keep_rate, with_kept_patches
from keras_deit.models.t2t_vit import T2TViTConfig, t2t_vit
from keras_deit.models.variants import VARIANTS, list_variants
from keras_deit.models.vision_transformer import ViTConfig, vision_transformer

__all__ = [
    "VARIANTS",
    "EncoderConfig",
    "Preprocessing",
    "RegNetConfig",
    "T2TViTConfig",
    "ViTConfig",
    "count_macs",
    "count_parameters",
    "explanation_model",
    "inference_model",
    "list_variants",
    "regnet",
    "regnet_stages",
    "t2t_vit",
    "vision_transformer",
    "with_keep_rate",
    "with_kept_patches",
]
