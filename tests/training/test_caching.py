"""A student that learns from a cache ends like one that asked the teacher."""

import os
import shutil
import subprocess
import sys
from dataclasses import replace

import keras
import numpy as np
import pytest
import tensorflow as tf

from keras_deit import Distiller, Teacher, create_model
from keras_deit.data.sources import load_source
from keras_deit.distillation.teacher_cache import TeacherCache
from keras_deit.training.caching import cache_teacher
from keras_deit.training.history import CSV
from keras_deit.training.parts import batches_of
from keras_deit.training.report import read_history
from keras_deit.training.run import train
from tests.training.small_recipes import RECIPE
from tests.training.test_resume import KilledError, killed_after

PLAIN = replace(
    RECIPE,
    variant="deit_micro_distilled_patch4_32",
    mixup=0.0,
    cutmix=0.0,
    repeats=1,
    epochs=3,
    warmup_epochs=1,
    kind="hard",
)


@pytest.fixture(scope="module")
def teacher(tmp_path_factory):
    """A teacher with opinions: random weights, but strong ones."""
    keras.utils.set_random_seed(1)
    model = create_model("regnety_micro_32", num_classes=10)
    head = model.get_layer("class_head")
    head.kernel.assign(30 * head.kernel)
    path = tmp_path_factory.mktemp("teacher") / "teacher.keras"
    model.save(path)
    return str(path)


@pytest.fixture(scope="module")
def cache(tmp_path_factory, teacher):
    return cache_teacher(
        replace(PLAIN, teacher=teacher), tmp_path_factory.mktemp("a") / "cache", 2
    )


def cached(recipe, cache):
    return replace(recipe, teacher=None, teacher_cache=str(cache))


@pytest.mark.slow
def test_a_run_from_a_cache_is_the_live_run(tmp_path, teacher, cache, capsys):
    recipe = replace(PLAIN, epochs=2)
    train(replace(recipe, teacher=teacher), tmp_path / "live")
    train(cached(recipe, cache), tmp_path / "cached")
    assert "are not shown to" in capsys.readouterr().out
    live = read_history(tmp_path / "live" / CSV)
    other = read_history(tmp_path / "cached" / CSV)
    for name in ("loss", "distillation_loss", "fused_agreement", "val_label_loss"):
        np.testing.assert_allclose(other[name], live[name], rtol=1e-5, err_msg=name)
    assert live["loss"][1] < live["loss"][0]
    for a, b in zip(
        weights_of(tmp_path / "live"), weights_of(tmp_path / "cached"), strict=True
    ):
        np.testing.assert_allclose(a, b, atol=1e-4)


def weights_of(folder):
    return keras.models.load_model(folder / "last.keras").get_weights()


def test_what_was_cached_is_what_the_teacher_says_of_the_views(teacher, cache):
    views = batches(PLAIN, 1, 3)
    model = Teacher(teacher)
    joined = TeacherCache(cache).join(views, 1, 3).take(2)
    for pixels, y, _ in joined:
        np.testing.assert_allclose(y["teacher_logits"], model(pixels), atol=1e-4)


def batches(recipe, first_epoch=0, first_step=0, cycle=None):
    source = load_source(recipe.dataset, "train")
    return batches_of(recipe, source, first_epoch, first_step, ids=True, cycle=cycle)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"seed": 5}, "seed: 4 in the cache, 5 now"),
        ({"crop_area": (0.5, 1.0)}, r"crop_area\[0\]: 0.08 in the cache, 0.5 now"),
        ({"batch_size": 100}, "batch_size: 200 in the cache, 100 now"),
        ({"mixup": 0.5}, "mixing mixup"),
        ({"image_size": 40}, r"image_size\[0\]: 32 in the cache, 40 now"),
    ],
)
def test_the_cache_of_another_recipe_is_refused(tmp_path, cache, change, message):
    with pytest.raises(ValueError, match=message):
        train(replace(cached(PLAIN, cache), **change), tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_the_cache_of_another_dataset_or_teacher_is_refused(tmp_path, cache):
    other = tmp_path / "images"
    pixels = np.zeros((8, 8, 3), np.uint8)
    for label in "0123456789":
        for number in range(25):
            path = other / label / f"{number}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(tf.io.encode_png(pixels + number).numpy())
    with pytest.raises(ValueError, match="dataset: .* in the cache"):
        train(replace(cached(PLAIN, cache), dataset=str(other)), tmp_path / "run")
    path = str(tmp_path / "other.keras")
    create_model("regnety_micro_32", num_classes=10).save(path)
    with pytest.raises(ValueError, match="teacher: '.*' in the cache"):
        train(replace(cached(PLAIN, cache), teacher=path), tmp_path / "run")


def test_a_damaged_shard_ends_the_run_by_its_name(tmp_path, cache):
    copy = tmp_path / "cache"
    shutil.copytree(cache, copy)
    shard = copy / "epoch-00000-step-0000000.tfrecord"
    data = bytearray(shard.read_bytes())
    data[len(data) // 2] ^= 4
    shard.write_bytes(data)
    with pytest.raises(ValueError, match=r"is damaged: epoch-00000-step-0000000\.tf"):
        train(cached(PLAIN, copy), tmp_path / "run")


def test_a_teacher_that_learns_is_not_cached(tmp_path, teacher):
    recipe = replace(PLAIN, teacher=teacher, train_teacher=True)
    with pytest.raises(ValueError, match="must not learn"):
        cache_teacher(recipe, tmp_path / "cache")
    with pytest.raises(ValueError, match="a teacher must be there"):
        cache_teacher(replace(PLAIN, kind="none"), tmp_path / "cache")


def test_a_cache_grows(tmp_path, teacher, cache, capsys):
    copy = tmp_path / "cache"
    shutil.copytree(cache, copy)
    cache_teacher(replace(PLAIN, teacher=teacher), copy, 3)
    assert "has 3 whole epochs" in capsys.readouterr().out
    old, new = TeacherCache(cache), TeacherCache(copy)
    assert (old.epochs, new.epochs) == (2, 3)
    first = next(iter(old.join(batches(PLAIN))))[1]["teacher_logits"]
    np.testing.assert_array_equal(
        next(iter(new.join(batches(PLAIN))))[1]["teacher_logits"], first
    )


HUNDRED = {"batch_size": 48, "epochs": 4}  # 29 steps an epoch
RICH = {
    "mixup": 0.8,
    "cutmix": 1.0,
    "repeats": 3,
    "rand_augment": "rand-m9-mstd0.5-inc1",
    "erasing": 0.25,
}
# Its true gradient is zero, so that its steps are noise.
KEY_BIAS = "attention/qkv/bias"


def without_key_biases(student):
    found = []
    for weight in student.trainable_weights:
        value = np.array(weight)
        if weight.path.endswith(KEY_BIAS):
            value = np.concatenate(
                [value[: len(value) // 3], value[-len(value) // 3 :]]
            )
        found.append(value)
    return found


def after_steps(recipe, teacher, data, strategy, steps=100):
    """Losses of each step, and the weights after them."""
    with strategy.scope():
        keras.utils.set_random_seed(3)
        overrides = recipe.model_overrides
        student = create_model(recipe.variant, num_classes=10, **overrides)
        distiller = Distiller(student, teacher(), recipe.kind)
        distiller.compile(keras.optimizers.AdamW(1e-3))
    losses = keras.callbacks.LambdaCallback(
        on_train_batch_end=lambda step, logs: seen.append(logs["loss"])
    )
    seen = []
    distiller.fit(
        data, steps_per_epoch=steps, verbose=0, callbacks=[losses], shuffle=False
    )
    return seen, without_key_biases(student)


@pytest.mark.slow
@pytest.mark.parametrize("replicas", [1, 2])
@pytest.mark.parametrize("views", ["plain", "mixed and repeated", "resumed"])
def test_a_hundred_steps_from_a_cache_equal_a_hundred_with_the_teacher(
    tmp_path, two_replicas, teacher, views, replicas
):
    rich = RICH if views != "plain" else {}
    recipe = replace(PLAIN, teacher=teacher, kind="soft", **HUNDRED, **rich)
    folder = cache_teacher(recipe, tmp_path / "cache", 4)
    strategy = two_replicas if replicas == 2 else tf.distribute.get_strategy()
    first = (1, 5) if views == "resumed" else (0, 0)
    data = batches(recipe, *first, cycle=4)
    joined = TeacherCache(folder).join(data, *first)
    live = after_steps(recipe, lambda: Teacher(teacher), data, strategy)
    cache = after_steps(recipe, lambda: Teacher(folder), joined, strategy)
    assert len(live[0]) == 100
    np.testing.assert_allclose(cache[0], live[0], rtol=1e-5)
    for a, b in zip(cache[1], live[1], strict=True):
        np.testing.assert_allclose(a, b, atol=1e-4)


@pytest.mark.slow
@pytest.mark.parametrize("keep", ["hard", 3])
def test_a_smaller_cache_has_the_very_hard_loss(tmp_path, teacher, keep):
    recipe = replace(PLAIN, teacher=teacher, **HUNDRED, **RICH)
    folder = cache_teacher(recipe, tmp_path / "cache", 4, keep)
    one = tf.distribute.get_strategy()
    joined = TeacherCache(folder).join(batches(recipe))
    live = after_steps(recipe, lambda: Teacher(teacher), batches(recipe), one)
    cache = after_steps(recipe, lambda: Teacher(folder), joined, one)
    np.testing.assert_allclose(cache[0], live[0], rtol=1e-5)


@pytest.mark.slow
def test_a_run_from_a_cache_goes_on_where_it_died(tmp_path, teacher, cache):
    """Also into epochs whose views come again."""
    train(cached(PLAIN, cache), tmp_path / "undisturbed")

    with pytest.MonkeyPatch.context() as patch, pytest.raises(KilledError):
        killed_after(patch, 17)  # in the third epoch of seven steps
        train(cached(PLAIN, cache), tmp_path / "run", checkpoint_steps=3)
    train(cached(PLAIN, cache), tmp_path / "run")
    for a, b in zip(
        weights_of(tmp_path / "undisturbed"), weights_of(tmp_path / "run"), strict=True
    ):
        np.testing.assert_array_equal(a, b)


@pytest.mark.slow
def test_a_killed_job_goes_on_without_missing_or_doubled_views(tmp_path, teacher):
    recipe = replace(PLAIN, teacher=teacher, **HUNDRED, **RICH)
    whole = cache_teacher(recipe, tmp_path / "whole", 2)
    (tmp_path / "recipe.json").write_text(recipe.to_json())
    script = (
        "import sys; from pathlib import Path; "
        "from keras_deit.training import caching; "
        "from keras_deit.training.recipe import recipe_from_json; "
        "caching.SHARD_VIEWS = 240; "
        "recipe = recipe_from_json(Path(sys.argv[1]).read_text()); "
        "caching.cache_teacher(recipe, sys.argv[2], 2)"
    )
    command = [sys.executable, "-c", script, tmp_path / "recipe.json", tmp_path / "cut"]
    for _ in range(3):  # each time a few shards farther
        before = len(list((tmp_path / "cut").glob("*.tfrecord")))
        process = subprocess.Popen(command, env=dict(os.environ))
        while process.poll() is None:
            if len(list((tmp_path / "cut").glob("*.tfrecord"))) > before + 2:
                process.kill()
        process.wait()
    subprocess.run(command, check=True)
    cut = TeacherCache(tmp_path / "cut")
    assert (cut.epochs, cut.damaged()) == (2, [])
    one = TeacherCache(whole).join(batches(recipe)).take(58)
    two = cut.join(batches(recipe)).take(58)
    for a, b in zip(one, two, strict=True):
        np.testing.assert_allclose(
            a[1]["teacher_logits"], b[1]["teacher_logits"], atol=1e-4
        )
