"""What a teacher adds: losses, the teacher itself, and the step that blends them."""

from keras_deit.distillation.distiller import Distiller
from keras_deit.distillation.losses import (
    hard_distillation,
    label_cross_entropy,
    soft_distillation,
)
from keras_deit.distillation.teacher import Teacher

__all__ = [
    "Distiller",
    "Teacher",
    "hard_distillation",
    "label_cross_entropy",
    "soft_distillation",
]
