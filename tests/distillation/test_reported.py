"""What is reported of an epoch."""

import keras
import numpy as np

from tests.distillation.small_models import compiled


def test_reports_accuracy_and_agreement_of_each_head_by_hand():
    # Logits are the pixels of the first row: the heads, the teacher and the labels say:
    #   class        0 1 2 3   (right on 4, agrees on 2)
    #   distillation 0 1 3 2   (right on 2, agrees on 4)
    image = keras.Input((4, 4, 3))
    pixels = image[:, 0, :, :]  # (B, 4, 3): four classes, three answers
    student = keras.Model(
        image, {"class": pixels[..., 0], "distillation": pixels[..., 1]}
    )
    teacher = keras.Model(image, pixels[..., 2])
    x = np.zeros((4, 4, 4, 3), "float32")
    for row, (a, b, c) in enumerate([(0, 0, 0), (1, 1, 1), (2, 3, 3), (3, 2, 2)]):
        x[row, 0, a, 0], x[row, 0, b, 1], x[row, 0, c, 2] = 1, 2, 1
    results = compiled(student, teacher).evaluate(
        x, np.arange(4), verbose=0, return_dict=True
    )
    assert results["class_accuracy"] == 1.0
    assert results["class_agreement"] == 0.5
    assert results["distillation_accuracy"] == 0.5
    assert results["distillation_agreement"] == 1.0
    assert results["fused_accuracy"] == 0.5  # the distillation head speaks louder
    assert results["fused_agreement"] == 1.0
