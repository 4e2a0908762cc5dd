from dataclasses import replace

import pytest

from keras_deit.models.complexity import count_macs
from keras_deit.models.factory import build_model
from keras_deit.models.reorganization import with_keep_rate
from keras_deit.training.model_costs import activations, model_costs
from keras_deit.training.workload import workload_of
from tests.training.small_recipes import RECIPE as SMALL
from tests.training.small_recipes import teacher_of

RECIPE = replace(SMALL, model_overrides={**SMALL.model_overrides, "depth": 1})


def student(**overrides):
    return build_model(RECIPE.variant, 10, **RECIPE.model_overrides, **overrides)


def test_measures_the_student_as_it_is_without_checkpointing():
    alone = workload_of(replace(RECIPE, gradient_checkpointing=True), 10)
    assert alone.student == model_costs(student())
    assert alone.student_activations == activations(student())
    assert alone.teacher is alone.teacher_activations is None


def test_a_student_that_drops_tokens_later_costs_the_mean_of_its_epochs():
    overrides = {**RECIPE.model_overrides, "keep_rate": 0.5, "reorganize_at": (0,)}
    recipe = replace(
        RECIPE, model_overrides=overrides, epochs=10, keep_rate_start_epoch=6
    )
    found = workload_of(recipe, 10)  # 6 epochs with all tokens, 4 with half of them
    half = student(keep_rate=0.5, reorganize_at=(0,))
    whole = count_macs(with_keep_rate(half, 1.0))
    assert found.student.macs == round((6 * whole + 4 * count_macs(half)) / 10)
    outside = model_costs(student()).macs - model_costs(student()).block_macs
    assert found.student.macs - found.student.block_macs == outside
    # Memory is needed for the epochs with all tokens.
    whole = activations(student(keep_rate=1.0, reorganize_at=(0,)))
    assert found.student_activations == whole
    assert found.student_activations.kept > activations(half).kept


def test_an_ensemble_costs_what_its_members_cost(tmp_path):
    recipe = replace(teacher_of(tmp_path, 10), model_overrides=RECIPE.model_overrides)
    one = workload_of(recipe, 10)
    assert one.teacher.macs == 32 * 32 * 3 * 10
    assert one.teacher_activations.kept == 0
    two = workload_of(replace(recipe, teacher=(recipe.teacher,) * 2), 10)
    assert two.teacher.macs == 2 * one.teacher.macs
    assert two.teacher.num_tensors == 4
    assert two.teacher_activations == one.teacher_activations  # they take turns


def test_a_teacher_that_is_trained_keeps_its_activations(tmp_path):
    recipe = replace(teacher_of(tmp_path, 10), model_overrides=RECIPE.model_overrides)
    trained = workload_of(replace(recipe, train_teacher=True), 10)
    assert trained.teacher_activations.kept == 4 * 32 * 32 * 3


def test_a_variant_teaches_with_all_its_classes_unless_it_is_trained():
    name = "deit_micro_patch4_32"
    recipe = replace(RECIPE, kind="soft", teacher=name)
    mixed = replace(recipe, teacher_precision="mixed_bfloat16")
    thousand, ten = (
        build_model(name, classes).count_params() for classes in (1000, 10)
    )
    assert workload_of(mixed, 10).teacher.bytes == 4 * thousand
    trained = replace(recipe, train_teacher="head")
    assert workload_of(trained, 10).teacher.bytes == 4 * ten


def test_refuses_a_teacher_that_it_cannot_measure():
    recipe = replace(RECIPE, kind="soft", teacher="some/folder")
    with pytest.raises(
        ValueError, match=r"`teacher` must be the name of a variant or a"
    ):
        workload_of(recipe, 10)
    with pytest.raises(FileNotFoundError):
        workload_of(replace(recipe, teacher="not/there.keras"), 10)
