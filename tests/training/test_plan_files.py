from dataclasses import replace

import keras
import numpy as np
import pytest

from keras_deit.distillation.cache_writer import CacheWriter
from keras_deit.models.factory import build_model
from keras_deit.training.checkpoints import Checkpoints
from keras_deit.training.model_costs import model_costs
from keras_deit.training.optimizers import make_optimizer
from keras_deit.training.plan_files import TENSOR_BYTES, caches_of, checkpoint_bytes
from tests.training.small_workloads import ALONE, RECIPE, TAUGHT


def test_a_checkpoint_by_hand():
    # AdamW: two moments of 80 bytes and 8 counts of 4; 10 + 3 x 8 tensors.
    size = 100 + 160 + 32 + 34 * TENSOR_BYTES
    assert checkpoint_bytes(RECIPE, ALONE) == size
    sgd = replace(RECIPE, optimizer="sgd")
    assert checkpoint_bytes(sgd, ALONE) == 100 + 80 + 18 * TENSOR_BYTES
    average = replace(sgd, ema_decay=0.9)
    assert checkpoint_bytes(average, ALONE) == 200 + 80 + 28 * TENSOR_BYTES


def test_a_teacher_is_in_a_checkpoint_if_it_is_trained():
    taught = replace(RECIPE, optimizer="sgd", kind="soft", teacher="t.keras")
    alone = checkpoint_bytes(taught, ALONE)
    assert checkpoint_bytes(taught, TAUGHT) == alone
    head = replace(taught, train_teacher="head")
    assert checkpoint_bytes(head, TAUGHT) == alone + 1000 + 20 * TENSOR_BYTES
    trained = replace(taught, train_teacher=True)
    assert checkpoint_bytes(trained, TAUGHT) == alone + 1900 + 35 * TENSOR_BYTES


@pytest.mark.parametrize("optimizer", ["adamw", "sgd"])
def test_a_real_checkpoint_is_as_large(tmp_path, optimizer):
    recipe = replace(RECIPE, optimizer=optimizer, ema_decay=0.9)
    student = build_model(recipe.variant, 10, embed_dim=16, num_heads=2)
    made = make_optimizer(student, recipe, 1e-3)
    made.build(student.trainable_weights)
    average = [keras.Variable(weight, name="w") for weight in student.weights]
    state = {
        "student": student.variables,
        "optimizer": made.variables,
        "average": average,
    }
    checkpoints = Checkpoints(tmp_path, lambda: state, steps_per_epoch=1, every=1)
    checkpoints.on_epoch_end(0)
    (file,) = tmp_path.rglob("*.safetensors")
    workload = replace(ALONE, student=model_costs(student))
    assert checkpoint_bytes(recipe, workload) == pytest.approx(
        file.stat().st_size, rel=0.01
    )


def test_the_caches_of_imagenet_by_hand():
    recipe = replace(RECIPE, batch_size=1024, epochs=300, warmup_epochs=0)
    hard, largest, everything = caches_of(recipe, 1251, 1000)
    frame = 24  # of a record: its length, two checksums, the fingerprint of its views
    assert (hard.keep_logits, hard.bytes_per_view) == ("hard", 2)
    assert hard.epoch_bytes == 1251 * (1024 * 2 + frame)
    assert (largest.keep_logits, largest.bytes_per_view) == (16, 66)
    assert (everything.keep_logits, everything.bytes_per_view) == ("all", 4000)
    assert everything.epoch_bytes == 1251 * (1024 * 4000 + frame)
    assert everything.run_bytes == 300 * everything.epoch_bytes


def test_sixteen_of_ten_logits_are_no_kind():
    assert [c.keep_logits for c in caches_of(RECIPE, 5, 10)] == ["hard", "all"]


def test_a_real_cache_is_as_large(tmp_path):
    steps, classes = 3, 20
    recipe = replace(RECIPE, batch_size=2, learning_rate_batch=None)
    for cache in caches_of(recipe, steps, classes):
        header = {
            "views": {},
            "dataset": "d",
            "teacher": {"digest": "e", "name": "n"},
            "keep_logits": cache.keep_logits,
            "temperature": 1.0,
            "class_names": [str(label) for label in range(classes)],
            "batch_size": 2,
            "steps_per_epoch": steps,
            "shard_steps": 2,  # two files
        }
        folder = tmp_path / str(cache.keep_logits)
        writer = CacheWriter(folder, header)
        for shard in writer.missing(1):
            with writer.claim(shard) as file:
                for _ in range(shard.steps):
                    file.write(np.arange(2), np.zeros((2, classes), "float32"))
        found = sum(file.stat().st_size for file in folder.glob("*.tfrecord"))
        assert cache.epoch_bytes == found
