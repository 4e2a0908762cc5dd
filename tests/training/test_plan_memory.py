from dataclasses import replace

import pytest

from keras_deit.training.plan_memory import advice, memory_of
from tests.training.small_workloads import ALONE, DEVICE, FLEET, RECIPE, TAUGHT

SOFT = replace(RECIPE, kind="soft", teacher="t.keras")
# 64 views on 8 devices; pixels of two batches of 8 in bytes.
PIXELS = 2 * 8 * 32 * 32 * 3


def parts(recipe, workload=ALONE, fleet=FLEET):
    memory = memory_of(recipe, fleet, workload)
    return {name: size for name, size in memory.parts.items() if size}


def test_a_step_by_hand():
    assert parts(RECIPE) == {
        "weights": 100,
        "gradients": 80,
        "optimizer": 160,
        "pixels": PIXELS,
        "activations of the student": 8 * (50 + 3 * 5),
    }
    assert memory_of(RECIPE, FLEET, ALONE).total == 100 + 80 + 160 + PIXELS + 520


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"optimizer": "sgd"}, {"optimizer": 80}),
        ({"ema_decay": 0.9}, {"average of the weights": 100}),
        ({"precision": "mixed_bfloat16"}, {"copy of the weights in 16 bits": 50}),
        ({"precision": "mixed_float16"}, {"copy of the weights in 16 bits": 50}),
        (
            {"gradient_checkpointing": True},
            {"activations of the student": 8 * (20 + 15)},
        ),
        (
            {"accumulate_steps": 4},
            {"gradients": 160, "activations of the student": 2 * 65},
        ),
        ({"image_size": 64}, {"pixels": 4 * PIXELS}),
    ],
)
def test_what_a_recipe_changes(changes, expected):
    assert parts(replace(RECIPE, **changes)) == parts(RECIPE) | expected


def test_a_teacher_takes_turns_with_the_student():
    live = memory_of(SOFT, FLEET, TAUGHT)
    assert live.parts["teacher"] == 1000
    assert live.parts["activations of the teacher"] == 8 * 3 * 7
    alone = memory_of(RECIPE, FLEET, ALONE)
    assert live.total == alone.total + 1000  # 520 bytes of the student are more
    large = replace(
        TAUGHT, teacher_activations=replace(TAUGHT.teacher_activations, largest=100)
    )
    assert memory_of(SOFT, FLEET, large).total == live.total - 520 + 8 * 3 * 100
    mixed = replace(SOFT, teacher_precision="mixed_bfloat16")
    assert parts(mixed, TAUGHT)["teacher"] == 1500
    cached = replace(SOFT, teacher_cache="cache")
    assert parts(cached, TAUGHT) == parts(RECIPE)


def test_a_teacher_that_is_trained_has_gradients_and_an_optimizer():
    trained = parts(replace(SOFT, train_teacher=True), TAUGHT)
    assert trained["teacher"] == 1000 + 3 * 900
    head = parts(replace(SOFT, train_teacher="head"), TAUGHT)
    assert head["teacher"] == 1000


def test_a_tenth_of_the_memory_is_left_free():
    total = memory_of(RECIPE, FLEET, ALONE).total
    for share, fits in ((0.9, True), (0.91, False)):
        fleet = replace(
            FLEET, accelerator=replace(DEVICE, memory_gb=total / share / 1e9)
        )
        assert memory_of(RECIPE, fleet, ALONE).fits is fits


def advised(recipe, workload, num_bytes):
    fleet = replace(FLEET, accelerator=replace(DEVICE, memory_gb=num_bytes / 0.9 / 1e9))
    return [line.partition(":") for line in advice(recipe, fleet, workload)]


def test_names_what_would_make_it_fit():
    # With 4 micro-batches of 2 views the gradients are 80 more, the activations 390
    # less; with 2 the latter are 260 less.
    total = memory_of(SOFT, FLEET, TAUGHT).total
    lines = advised(SOFT, TAUGHT, total - 250)
    assert [(name, text.endswith(", fits")) for name, _, text in lines] == [
        ("accumulate_steps=4", True),
        ("gradient_checkpointing=true", False),
        ("a teacher_cache in place of the teacher", True),
        ("precision=mixed_bfloat16", False),
    ]
    assert advised(SOFT, TAUGHT, total - 180)[0][0] == "accumulate_steps=2"
    name, _, text = advised(SOFT, TAUGHT, 1)[0]
    assert name == "accumulate_steps=8"
    assert text.endswith(" GB, does not fit either")


@pytest.mark.parametrize(
    ("formats", "named"),
    [
        (("float16", "bfloat16"), ["precision=mixed_bfloat16"]),
        (("float16",), ["precision=mixed_float16"]),
        ((), []),
    ],
)
def test_names_the_half_precision_that_a_device_has(formats, named):
    recipe = replace(RECIPE, accumulate_steps=8, gradient_checkpointing=True)
    tflops = {"float32": 1.0, **dict.fromkeys(formats, 2.0)}
    fleet = replace(FLEET, accelerator=replace(DEVICE, tflops=tflops))
    lines = advice(recipe, fleet, ALONE)
    assert [line.partition(":")[0] for line in lines] == named


def test_advises_nothing_that_is_there_already_or_cannot_be():
    recipe = replace(
        RECIPE,
        accumulate_steps=8,  # a view at a time
        gradient_checkpointing=True,
        precision="mixed_bfloat16",
    )
    assert advised(recipe, ALONE, 1) == []
    trained = advised(replace(SOFT, train_teacher=True), TAUGHT, 1)
    names = [name for name, *_ in trained]
    assert names == ["gradient_checkpointing=true", "precision=mixed_bfloat16"]
    no_blocks = replace(ALONE.student_activations, kept_between_blocks=50)
    lines = advised(RECIPE, replace(ALONE, student_activations=no_blocks), 1)
    names = [name for name, *_ in lines]
    assert names == ["accumulate_steps=8", "precision=mixed_bfloat16"]
