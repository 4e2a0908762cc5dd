"""One step of an optimizer."""

import keras
import numpy as np

from keras_deit import create_model
from tests.distillation.small_models import CLASSES, batch, compiled, two_heads


def test_with_kind_none_the_distillation_head_keeps_its_weights():
    student, (x, y) = two_heads(), batch()
    before = np.array(student.get_layer("distillation_head").kernel)
    compiled(student, kind="none").fit(x, y, verbose=0)
    np.testing.assert_array_equal(before, student.get_layer("distillation_head").kernel)


def test_float16_scales_its_loss():
    student = create_model(
        "deit_micro_distilled_patch4_32", num_classes=CLASSES, dtype="mixed_float16"
    )
    optimizer = keras.optimizers.LossScaleOptimizer(
        keras.optimizers.SGD(0.01), initial_scale=8.0
    )
    distiller = compiled(student, trainable_teacher(), optimizer=optimizer)
    full = create_model("deit_micro_distilled_patch4_32", num_classes=CLASSES)
    full.set_weights(student.get_weights())
    plain = compiled(full, distiller.teacher, optimizer=keras.optimizers.SGD(0.01))
    x, y = batch(4, 32)
    distiller.train_on_batch(x, y)
    plain.train_on_batch(x, y)
    for a, b in zip(student.trainable_weights, full.trainable_weights, strict=True):
        np.testing.assert_allclose(a, b, atol=1e-4)


def test_a_float16_student_gets_a_loss_scale():
    student = create_model(
        "deit_micro_patch4_32", num_classes=CLASSES, dtype="mixed_float16"
    )
    distiller = compiled(student, kind="none")
    assert isinstance(distiller.optimizer, keras.optimizers.LossScaleOptimizer)
    assert not isinstance(
        compiled(two_heads(), kind="none").optimizer,
        keras.optimizers.LossScaleOptimizer,
    )


def trainable_teacher():
    return create_model("regnety_micro_32", num_classes=CLASSES)
