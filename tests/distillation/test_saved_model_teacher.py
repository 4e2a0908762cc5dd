"""A SavedModel answers as it did where it was saved."""

import numpy as np
import pytest
import tensorflow as tf
from keras import ops

import keras_deit
from keras_deit import Teacher, create_model
from tests.distillation.test_teacher_kinds import classifier, pixels


class Module(tf.Module):
    """Means of the channels, as classes, in three signatures."""

    @tf.function(input_signature=[tf.TensorSpec((None, 4, 4, 3), tf.uint8, "pixels")])
    def of_bytes(self, pixels):
        means = tf.reduce_mean(tf.cast(pixels, tf.float32), [1, 2])
        return {"logits": means, "probabilities": tf.nn.softmax(means)}

    @tf.function(input_signature=[tf.TensorSpec((None, 4, 4, 3), tf.float32, "x")])
    def of_floats(self, x):
        return {"y": tf.reduce_mean(x, [1, 2]) / 255}

    @tf.function(input_signature=[tf.TensorSpec((None,), tf.string, "files")])
    def of_files(self, files):
        return {"logits": tf.zeros((tf.size(files), 3))}


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    folder, module = tmp_path_factory.mktemp("saved"), Module()
    for name, signatures in {
        "served": {"serving_default": module.of_files, "pixels": module.of_bytes},
        "two": {"a": module.of_bytes, "b": module.of_floats},
        "files": {"serving_default": module.of_files},
    }.items():
        tf.saved_model.save(module, str(folder / name), signatures)
    return folder


def test_a_signature_for_images_is_found_among_others(saved):
    teacher = Teacher(saved / "served")
    assert (teacher.image_size, teacher.num_classes) == ((4, 4), 3)
    x = np.full((2, 4, 4, 3), [10.4, 20.6, 299.0], "f4")  # rounded, and cut at 255
    np.testing.assert_array_equal(teacher(x), [[10, 21, 255]] * 2)


def test_of_several_signatures_one_must_be_named(saved):
    with pytest.raises(ValueError, match=r"name it. Those that do: \['a', 'b'\]"):
        Teacher(saved / "two")
    x = pixels(4)
    np.testing.assert_allclose(
        Teacher(saved / "two", signature="b")(x), x.mean((1, 2)) / 255, rtol=1e-5
    )
    with pytest.raises(ValueError, match="Received: signature='c'"):
        Teacher(saved / "two", signature="c")


def test_a_saved_model_that_takes_no_images_is_refused(saved):
    with pytest.raises(ValueError, match=r"Those that do: \[\].*serving_default"):
        Teacher(saved / "files")


def test_a_saved_model_of_another_size_is_refused(saved):
    message = r"at its own size only.*image_size=\(8, 8\), teacher=\(4, 4\)"
    with pytest.raises(ValueError, match=message):
        Teacher(saved / "served", image_size=8)


def test_a_damaged_saved_model_is_refused(tmp_path):
    (tmp_path / "saved_model.pb").write_bytes(b"no graph")
    with pytest.raises(ValueError, match="holds no SavedModel"):
        Teacher(tmp_path)


def test_what_keras_exports_teaches(tmp_path):
    model = classifier()
    model.export(tmp_path / "exported", verbose=False)
    teacher = Teacher(tmp_path / "exported")
    np.testing.assert_allclose(teacher(pixels()), model(pixels()), atol=1e-5)


@pytest.mark.slow
def test_our_own_artifact_teaches(tmp_path):
    model = create_model("deit_micro_distilled_patch4_32", num_classes=5)
    folder = keras_deit.export.saved_model(model, tmp_path / "model")
    teacher = Teacher(folder)
    whole = pixels(32).round()
    expected = keras_deit.inference_model(model)(whole)
    np.testing.assert_allclose(teacher(whole), expected, atol=1e-4)


def test_a_saved_model_that_returns_probabilities_is_noticed(tmp_path):
    model = classifier(activation="softmax")
    model.export(tmp_path / "exported", verbose=False)
    with pytest.raises(ValueError, match="ends in a softmax: pass `from_logits=False`"):
        Teacher(tmp_path / "exported")
    teacher = Teacher(tmp_path / "exported", from_logits=False)
    np.testing.assert_allclose(
        ops.softmax(teacher(pixels())), model(pixels()), atol=1e-5
    )


def test_the_digest_of_a_saved_model_is_of_its_files(saved):
    served = Teacher(saved / "served").digest
    assert served == Teacher(saved / "served", signature="pixels").digest
    assert served != Teacher(saved / "two", signature="a").digest
    assert (
        Teacher(saved / "two", signature="a").digest
        != Teacher(saved / "two", signature="b").digest
    )


def saved_with_an_optimizer(path):
    """Saves what TensorFlow can load with the class of the optimizer only."""
    model = tf.Module()
    model.kernel = tf.Variable(tf.random.stateless_normal((48, 5), (0, 0)))
    model.optimizer = tf.compat.v1.train.AdamOptimizer()

    @tf.function(input_signature=[tf.TensorSpec((None, 4, 4, 3), name="pixels")])
    def serve(pixels):
        return {"logits": tf.reshape(pixels, (-1, 48)) @ model.kernel}

    with tf.GradientTape() as tape:
        loss = tf.reduce_sum(serve(tf.ones((1, 4, 4, 3)))["logits"])
    gradient = tape.gradient(loss, model.kernel)
    model.optimizer.apply_gradients([(gradient, model.kernel)])
    tf.saved_model.save(model, str(path), signatures=serve)
    return model.kernel.numpy()


def test_the_optimizer_that_was_saved_with_it_is_left_aside(tmp_path):
    kernel = saved_with_an_optimizer(tmp_path / "model")
    with pytest.raises(AttributeError, match="add_slot"):
        tf.saved_model.load(str(tmp_path / "model"))
    x = pixels(4)
    np.testing.assert_allclose(
        Teacher(tmp_path / "model")(x), x.reshape(3, 48) @ kernel, rtol=1e-4, atol=1e-2
    )


def test_it_is_not_loaded_in_the_scope_of_a_strategy(saved, two_replicas):
    with two_replicas.scope(), pytest.raises(ValueError, match="outside of a strategy"):
        Teacher(saved / "served")
