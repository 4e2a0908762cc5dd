from dataclasses import replace

import numpy as np
import pytest

from keras_deit.training.announcement import announce
from keras_deit.training.parts import build
from keras_deit.training.workers import Workers
from tests.training.small_recipes import RECIPE, teacher_of


def test_what_a_recipe_comes_to_is_printed(capsys):
    assert announce(build(RECIPE), resume=False) == {}
    assert capsys.readouterr().out == (
        "deit_micro_patch4_32: 5,322 parameters, 0.4 million multiply-adds an image\n"
        "digits: 1,438 training and 359 validation images, 10 classes, 32 x 32 pixels\n"
        "20 epochs of 7 steps of 200 views: 140 steps, 467 distinct images an epoch\n"
        "adamw: peak learning rate 0.000195 (0.0005 x 200 / 512) after 5 epochs, "
        "schedule cosine; weight decay 0.05; seed 4\n"
        "float32\n"
    )


def test_how_the_steps_are_computed_is_printed(two_replicas, capsys):
    recipe = replace(
        RECIPE,
        precision="mixed_bfloat16",
        accumulate_steps=4,
        gradient_checkpointing=True,
    )
    announce(build(recipe, workers=Workers(two_replicas)), resume=False)
    assert capsys.readouterr().out.splitlines()[-1] == (
        "mixed_bfloat16; MirroredStrategy: 2 replicas of 100 views; 4 micro-batches in "
        "a step; gradient checkpointing"
    )


def test_the_teacher_is_measured_before_the_first_step(tmp_path, capsys):
    parts = build(teacher_of(tmp_path, 10))
    announcement = announce(parts, resume=False)
    nines = np.mean([int(e["label"]) == 9 for e in parts.sources[1].in_order()])
    assert announcement["teacher"]["accuracy"] == pytest.approx(nines)
    assert 0 <= announcement["teacher"]["agreement"] <= 1
    printed = capsys.readouterr().out
    assert "hard distillation, alpha 0.5" in printed
    assert f"the teacher is right on {nines:.2%} of up to 2,048" in printed
    assert announce(parts, resume=True) == {}
    assert "Before the first step" not in capsys.readouterr().out


def test_a_teacher_that_only_watches_is_said_to(tmp_path, capsys):
    recipe = replace(teacher_of(tmp_path, 10), kind="none")
    announce(build(recipe), resume=True)
    assert "labels only, the agreement is reported" in capsys.readouterr().out


def test_where_the_weights_come_from_is_said(tmp_path, capsys):
    build(RECIPE).student.save(tmp_path / "start.keras")
    recipe = replace(RECIPE, weights=str(tmp_path / "start.keras"))
    announce(build(recipe), resume=False)
    assert f"an image, from {tmp_path}/start.keras\n" in capsys.readouterr().out


def test_a_rate_that_is_not_scaled_is_said_as_it_is(capsys):
    announce(build(replace(RECIPE, learning_rate_batch=None)), resume=False)
    assert "peak learning rate 0.0005 after 5 epochs" in capsys.readouterr().out
