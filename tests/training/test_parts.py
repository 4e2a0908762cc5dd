from dataclasses import replace

import numpy as np
import pytest

from keras_deit.training.parts import build
from tests.training.small_recipes import RECIPE, teacher_of


@pytest.fixture(scope="module")
def parts():
    return build(RECIPE)


def test_the_steps_of_an_epoch_are_the_whole_batches_of_the_images(parts):
    assert parts.sources[0].num_examples == 1438
    assert parts.steps_per_epoch == 7
    assert len(parts.validation) == 2  # 359 images, the second batch filled up
    assert parts.class_names == tuple("0123456789")


def test_the_training_views_begin_where_they_are_asked_to(parts):
    whole = parts.training(0, 0).take(9).as_numpy_iterator()
    later = next(iter(parts.training(1, 1).take(1).as_numpy_iterator()))
    for one, other in zip(list(whole)[8], later, strict=True):
        np.testing.assert_array_equal(one, other)


def test_the_batches_are_mixed_and_smoothed_as_the_recipe_says(parts):
    _, labels, _ = next(iter(parts.training(0, 0)))
    assert labels.shape == (200, 10)
    assert labels.numpy().min() == pytest.approx(0.01)  # 0.1 over ten classes
    unmixed = build(replace(RECIPE, mixup=0.0, cutmix=0.0))
    _, labels, _ = next(iter(unmixed.training(0, 0)))
    assert labels.numpy().max() == pytest.approx(0.91)


def test_the_optimizer_follows_the_schedule(parts):
    optimizer = parts.distiller.optimizer
    assert float(optimizer.learning_rate) == pytest.approx(float(parts.schedule(0)))
    assert float(parts.schedule(5 * 7)) == pytest.approx(RECIPE.peak_learning_rate)


def test_another_size_of_the_model_is_the_size_of_the_views():
    parts = build(replace(RECIPE, image_size=40))
    assert parts.validation.element_spec[0].shape == (200, 40, 40, 3)
    assert parts.training(0, 0).element_spec[0].shape == (200, 40, 40, 3)


def keep_rate(**changes):
    overrides = {**RECIPE.model_overrides, "keep_rate": 0.5, "reorganize_at": [0]}
    return replace(RECIPE, model_overrides=overrides, **changes)


def test_a_student_without_a_keep_rate_has_no_stages(parts):
    assert parts.stages == []


def test_the_stages_of_the_keep_rate_end_at_the_students_own():
    assert build(keep_rate()).stages == [(0, 0.5)]
    assert build(keep_rate(keep_rate_start_epoch=2)).stages == [(0, 1.0), (2, 0.5)]


def test_a_ramp_of_a_student_that_drops_nothing_is_refused():
    message = r"are for a student that drops tokens: set `keep_rate` .* keep_rate=1\.0"
    with pytest.raises(ValueError, match=message):
        build(replace(RECIPE, keep_rate_start_epoch=2))


def taught(recipe):
    """The class, in the student's order, that the teacher answers."""
    teacher = build(recipe).distiller.teacher
    return int(np.argmax(teacher(np.zeros((1, 32, 32, 3)))[0]))


def test_a_teacher_without_names_has_the_same_order(tmp_path):
    assert taught(teacher_of(tmp_path, 10)) == 9


def test_the_classes_of_a_teacher_are_matched_by_the_names_beside_it(tmp_path):
    names = ["x", *"0123456978", "y", "z"]
    recipe = teacher_of(tmp_path, 13, names)
    # Its logits rise with the class; among the ten digits, "8" is the last of its own.
    assert taught(recipe) == 8


def test_the_classes_of_a_teacher_are_matched_by_a_table(tmp_path):
    recipe = teacher_of(tmp_path, 12)
    table = (11, *range(9))
    assert taught(replace(recipe, teacher_classes=table)) == 0


def test_a_teacher_of_other_classes_is_refused(tmp_path):
    with pytest.raises(ValueError, match="teacher_classes"):
        build(teacher_of(tmp_path, 7))
