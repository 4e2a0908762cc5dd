import keras
import numpy as np
import pytest
import tensorflow as tf

from keras_deit.distillation.teacher_cache import TeacherCache
from keras_deit.training.optimizers import LayerwiseOptimizer
from trainers._contestants import distillation

STUDENT, TEACHER = "deit_micro_distilled_patch4_32", "regnety_micro_32"
TEACHING = ("none", "live", "all", 16, "hard")


@pytest.fixture(scope="module")
def parts(tmp_path_factory):
    """Distiller and batches by who teaches."""
    folder = tmp_path_factory.mktemp("caches")
    return {
        teaching: distillation._parts(
            folder / str(teaching), STUDENT, TEACHER, 2, teaching
        )
        for teaching in TEACHING
    }


def first(batches, number=1):
    return [
        tf.nest.map_structure(np.asarray, batch)
        for batch in batches.take(number).as_numpy_iterator()
    ]


def logits_of(parts, teaching, number=1):
    return [y["teacher_logits"] for _, y, _ in first(parts[teaching][1], number)]


def test_only_the_teacher_differs(parts):
    student, (batch,) = parts["none"][0].student, first(parts["none"][1])
    pixels, labels, weights = batch
    assert (pixels.dtype, pixels.shape) == (np.uint8, (2, 32, 32, 3))
    assert (labels.dtype, labels.shape) == (np.float32, (2, 1000))
    np.testing.assert_allclose(labels.sum(axis=1), 1, atol=1e-5)
    np.testing.assert_array_equal(weights, np.ones(2, np.float32))
    for teaching in TEACHING[1:]:
        distiller, batches = parts[teaching]
        for ours, theirs in zip(
            distiller.student.get_weights(), student.get_weights(), strict=True
        ):
            np.testing.assert_array_equal(ours, theirs)
        ((same, y, _),) = first(batches)
        np.testing.assert_array_equal(same, pixels)
        y = y["label"] if isinstance(y, dict) else y
        np.testing.assert_array_equal(y, labels)


def test_the_teachers_are_who_they_should_be(parts):
    none, live = parts["none"][0], parts["live"][0]
    assert (none.objective.kind, none.teacher) == ("none", None)
    assert (live.objective.kind, live.teacher.cache) == ("hard", None)
    assert live.teacher.model.count_params() > 272_468  # 1000 classes
    for teaching in ("all", 16, "hard"):
        distiller = parts[teaching][0]
        assert distiller.objective.kind == "hard"
        assert isinstance(distiller.teacher.cache, TeacherCache)
        assert distiller.teacher.cache.codec.keep == teaching
        assert distiller.teacher.cache.damaged() == []


def test_batches_without_a_cache_have_neither_ids_nor_logits(parts):
    for teaching in ("none", "live"):
        assert not isinstance(parts[teaching][1].element_spec[1], dict)


def test_caches_keep_the_same_logits_each_in_its_way(parts):
    steps = distillation.NUM_BATCHES + 1
    whole = logits_of(parts, "all", steps)
    np.testing.assert_array_equal(whole[-1], whole[0])  # the epoch begins again
    assert len({logits.tobytes() for logits in whole}) == steps - 1
    assert 0.9 < np.std(whole) < 1.1
    for kept in (16, "hard"):
        logits = logits_of(parts, kept, steps)
        np.testing.assert_array_equal(
            np.argmax(logits, axis=-1), np.argmax(whole, axis=-1)
        )
        assert np.abs(np.array(logits) - whole).max() > 0.1


def test_the_optimizer_is_that_of_the_recipes(parts):
    for distiller, _ in parts.values():
        assert isinstance(distiller.optimizer, LayerwiseOptimizer)
        assert distiller.optimizer.method == "adamw"
        assert distiller.optimizer.kernel_decay == 0.05
        assert float(distiller.optimizer.learning_rate) == pytest.approx(1e-5)
        assert not distiller.run_eagerly


def test_a_step_is_one_of_fit(parts, monkeypatch):
    # `fit` on the same two batches, and the step, called twice.
    distiller, batches = parts["all"]
    weights = distiller.student.get_weights()
    monkeypatch.setattr(distillation, "_parts", lambda *arguments: parts["all"])
    step = distillation.training_step(None, STUDENT, TEACHER, 2, "all")
    assert [step(), step()] == [2, 2]
    assert int(distiller.optimizer.iterations) == 2
    ours = distiller.student.get_weights()
    assert any(np.any(a != b) for a, b in zip(ours, weights, strict=True))
    distiller.student.set_weights(weights)
    for variable in distiller.optimizer.variables:
        if variable.path != distiller.optimizer.learning_rate.path:
            variable.assign(keras.ops.zeros_like(variable))
    history = distiller.fit(batches, steps_per_epoch=2, verbose=0).history
    assert np.isfinite(history["distillation_loss"]).all()
    for weight, expected in zip(ours, distiller.student.get_weights(), strict=True):
        np.testing.assert_allclose(weight, expected, atol=1e-6)


@pytest.mark.parametrize("teaching", ["live", 16])
def test_every_kind_of_step_learns_from_its_teacher(parts, teaching):
    distiller, batches = parts[teaching]
    distiller.reset_metrics()
    logs = distiller.train_step(next(iter(batches)))
    assert float(logs["distillation_loss"]) > 1
    assert np.isfinite(float(logs["loss"]))


def test_the_task_is_the_step(monkeypatch):
    asked = []
    monkeypatch.setattr(
        distillation, "training_step", lambda *arguments: asked.append(arguments)
    )
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0")
    for name in ("intra", "inter"):
        monkeypatch.setattr(
            tf.config.threading, f"set_{name}_op_parallelism_threads", asked.append
        )
    tasks = distillation.tasks("folder", STUDENT, TEACHER, 4, 16)
    assert tuple(tasks) == distillation.PATH
    assert asked == [1, 1]
    tasks["step"]()
    folder, *rest = asked[2]
    assert (folder.name, rest) == ("folder", [STUDENT, TEACHER, 4, 16])
