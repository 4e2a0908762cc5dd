"""What a teacher adds: losses, the teacher itself, and the step that blends them."""

from keras_deit.distillation.distiller import Distiller
from keras_deit.distillation.losses import (
    hard_distillation,
    label_cross_entropy,
    soft_distillation,
)
from keras_deit.distillation.teacher import Teacher
from keras_deit.distillation.teacher_cache import TeacherCache

__all__ = [
    "Distiller",
    "Teacher",
    "TeacherCache",
    "hard_distillation",
    "label_cross_entropy",
    "soft_distillation",
]
