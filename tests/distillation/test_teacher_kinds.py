"""Every kind of teacher answers like what stands behind it."""

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import ops

from keras_deit import Teacher, create_model, with_keep_rate
from keras_deit.distillation.teacher_kinds import of_keras_model

SIZE = 8


def classifier(classes=5, activation=None, seed=0):
    keras.utils.set_random_seed(seed)
    return keras.Sequential(
        [
            keras.Input((SIZE, SIZE, 3)),
            keras.layers.Rescaling(1 / 255),
            keras.layers.Flatten(),
            keras.layers.Dense(classes, activation=activation),
        ],
        name="classifier",
    )


def pixels(size=SIZE, count=3, seed=0):
    random = np.random.default_rng(seed)
    return random.uniform(0, 255, (count, size, size, 3)).astype("f4")


# A Keras model at another size


def test_a_convolutional_teacher_is_built_for_another_size():
    model = create_model("regnety_micro_32", num_classes=5)
    teacher = Teacher(model, image_size=48)
    assert teacher.model.inputs[0].shape[1:3] == (48, 48)
    larger = create_model("regnety_micro_32", num_classes=5, image_size=48)
    larger.set_weights(model.get_weights())
    np.testing.assert_allclose(teacher(pixels(48)), larger(pixels(48)), atol=1e-5)
    resized = tf.image.resize(pixels(32), (48, 48), antialias=True)
    np.testing.assert_allclose(teacher(pixels(32)), larger(resized), atol=1e-5)


def test_at_its_own_size_a_model_is_not_copied():
    model = create_model("regnety_micro_32", num_classes=5)
    assert of_keras_model(model, (32, 32)).model is model


def test_a_transformer_of_another_size_is_refused():
    model = create_model("deit_micro_patch4_32", num_classes=5)
    with pytest.raises(ValueError, match=r"image_size=\(48, 48\), teacher=\(32, 32\)"):
        Teacher(model, image_size=48)


# The name of a variant


def test_the_name_of_a_variant_is_a_teacher_with_all_its_weights(tmp_path):
    model = create_model("regnety_micro_32", num_classes=7)
    model.save(tmp_path / "weights.keras")
    teacher = Teacher(
        "regnety_micro_32",
        weights=tmp_path / "weights.keras",
        num_classes=7,
        classes=[6, 0],
    )
    expected = np.array(model(pixels(32)))[:, [6, 0]]
    np.testing.assert_allclose(teacher(pixels(32)), expected, atol=1e-6)


def test_a_variant_with_a_fresh_head_is_no_teacher(tmp_path):
    create_model("regnety_micro_32", num_classes=7).save(tmp_path / "weights.keras")
    with pytest.raises(ValueError, match="needs all of its weights.*num_classes=5"):
        Teacher("regnety_micro_32", weights=tmp_path / "weights.keras", num_classes=5)


# A function


def test_a_function_of_tensors_teaches_inside_a_graph():
    teacher = Teacher(lambda x: tf.reduce_mean(x, [1, 2]), num_classes=3)
    result = tf.function(teacher)(pixels())
    np.testing.assert_allclose(result, pixels().mean((1, 2)), rtol=1e-5)
    assert result.shape == (3, 3)


def test_a_function_of_arrays_teaches_inside_a_graph():
    kinds = []

    def answer(x):
        kinds.append(type(x))
        return x.mean((1, 2)).astype("float64")

    teacher = Teacher(answer, num_classes=3, as_numpy=True)
    result = tf.function(teacher)(pixels())
    np.testing.assert_allclose(result, pixels().mean((1, 2)), rtol=1e-5)
    assert set(kinds) == {np.ndarray}


def test_a_function_must_say_how_many_classes_it_has():
    with pytest.raises(ValueError, match="A function needs `num_classes`"):
        Teacher(lambda x: x)
    with pytest.raises(
        ValueError, match=r"must return \(B, Y\), Y being `num_classes`"
    ):
        Teacher(lambda x: tf.reduce_mean(x, [1, 2]), num_classes=4, image_size=8)


def test_logits_taken_for_probabilities_are_noticed():
    with pytest.raises(ValueError, match="returns no probabilities: leave"):
        Teacher(
            lambda x: tf.reduce_mean(x, [1, 2]) + 1,
            num_classes=3,
            image_size=8,
            from_logits=False,
        )


# An ensemble


def constant(*logits):
    """A teacher that always says the same."""
    answer = tf.constant([logits], tf.float32)
    return Teacher(
        lambda x: tf.repeat(answer, tf.shape(x)[0], axis=0),
        num_classes=len(logits),
        version=str(logits),
    )


def test_the_mean_of_logits_and_of_probabilities_by_hand():
    # Probabilities (0.8, 0.2) and (0.5, 0.5).
    members = [constant(np.log(4.0), 0.0), constant(1.0, 1.0)]
    logits = Teacher(members)(pixels())[0]
    np.testing.assert_allclose(logits, [np.log(2) + 0.5, 0.5], rtol=1e-5)
    both = Teacher(members, mean="probabilities")(pixels())[0]
    np.testing.assert_allclose(ops.softmax(both), [0.65, 0.35], rtol=1e-5)
    heavy = Teacher(members, mean="probabilities", shares=[3, 1])(pixels())[0]
    np.testing.assert_allclose(ops.softmax(heavy), [0.725, 0.275], rtol=1e-5)


def test_members_keep_their_own_sizes_and_classes():
    small, large = classifier(classes=3), create_model("regnety_micro_32", 5)
    member = Teacher(large, classes=[4, 0, 1])
    teacher = Teacher([small, member])
    expected = (np.array(Teacher(small)(pixels(16))) + member(pixels(16))) / 2
    np.testing.assert_allclose(teacher(pixels(16)), expected, rtol=1e-5)
    chosen = Teacher([small, member], classes=[2])
    np.testing.assert_allclose(chosen(pixels(16)), expected[:, 2:], rtol=1e-5)


def test_a_wrong_from_logits_of_a_keras_model_is_noticed():
    with pytest.raises(ValueError, match="returns no probabilities: leave"):
        Teacher(classifier(), from_logits=False)
    image = keras.Input((SIZE, SIZE, 3))
    nested = keras.Model(image, classifier(activation="softmax")(image))
    with pytest.raises(ValueError, match="ends in a softmax: pass `from_logits=False`"):
        Teacher(nested)


def test_probabilities_of_half_precision_are_noticed():
    model = classifier()
    softmax = keras.layers.Softmax(dtype="bfloat16")(model.outputs[0])
    nested = keras.Model(model.inputs[0], keras.layers.Identity()(softmax))
    with pytest.raises(ValueError, match="ends in a softmax: pass `from_logits=False`"):
        Teacher(nested)


def test_a_model_of_two_inputs_is_refused():
    images = [keras.Input((SIZE, SIZE, 3)) for _ in range(2)]
    x = keras.layers.Flatten()(images[0] + images[1])
    with pytest.raises(ValueError, match="RGB images.*and nothing else.*inputs=2"):
        Teacher(keras.Model(images, keras.layers.Dense(3)(x)))


def test_an_ensemble_that_does_not_fit_together_is_refused():
    with pytest.raises(
        ValueError, match=r"the same classes. Received: classes=\[5, 4\]"
    ):
        Teacher([classifier(5), classifier(4)])
    for shares in ([1.0], [1.0, 0.0], [1.0, float("nan")]):
        with pytest.raises(ValueError, match="one positive number for each member"):
            Teacher([classifier(), classifier()], shares=shares)
    with pytest.raises(ValueError, match="`mean` must be one of"):
        Teacher([classifier(), classifier()], mean="median")


# The digest


def test_the_digest_is_of_weights_structure_and_preprocessing(tmp_path):
    model = classifier()
    model.save(tmp_path / "a.keras")
    digest = Teacher(model).digest
    assert len(digest) == 64
    assert Teacher(tmp_path / "a.keras").digest == digest
    assert Teacher(classifier()).digest == digest  # built a second time
    assert Teacher(classifier(seed=1)).digest != digest
    assert Teacher(model, classes=[1, 0]).digest != digest
    assert Teacher(model, image_size=(SIZE, SIZE)).digest == digest
    assert Teacher(model).of_classes([1, 0]).digest != digest


def test_the_digest_knows_what_a_layer_does():
    model = create_model("regnety_micro_32", num_classes=5)
    other = create_model("regnety_micro_32", num_classes=5, mean=(0.4, 0.5, 0.5))
    other.set_weights(model.get_weights())
    assert Teacher(model).digest != Teacher(other).digest
    thin = create_model("deit_micro_patch4_32", num_classes=5)
    assert Teacher(thin).digest != Teacher(with_keep_rate(thin, 0.5)).digest


def test_the_digest_is_not_fooled_by_the_names_of_layers():
    def network(*names, activation="relu", inner=False):
        image = keras.Input((SIZE, SIZE, 3), name=names[0])
        body = keras.layers.Dense(5, name=names[1])
        if inner:
            body = keras.Sequential([body, keras.layers.Dense(5)])
        x = body(keras.layers.Flatten()(image))
        x = keras.layers.Activation(activation, name=names[2])(x)
        model = keras.Model(image, x)
        random = np.random.default_rng(0)
        model.set_weights([random.normal(size=w.shape) for w in model.get_weights()])
        return Teacher(model).digest

    assert network("a", "b", "relu") == network("x", "y", "z")
    assert network("a", "b", "relu") != network("a", "b", "tanh", activation="tanh")
    assert network("a", "b", "c", inner=True) == network("x", "y", "z", inner=True)


def test_the_digest_does_not_depend_on_what_may_be_trained():
    model = classifier()
    digest = Teacher(model).digest
    model.trainable = False
    assert Teacher(model).digest == digest


def test_the_same_shares_have_the_same_digest():
    members = [constant(1.0, 2.0), constant(2.0, 1.0)]
    digests = {
        Teacher(members, shares=shares).digest for shares in (None, [1, 1], [2.0, 2.0])
    }
    assert len(digests) == 1


def test_code_has_no_digest_but_a_version():
    function = Teacher(lambda x: x[:, 0, 0], num_classes=3)
    with pytest.raises(ValueError, match="has no digest: pass `version`"):
        _ = function.digest
    prepared = Teacher(classifier(), preprocess=lambda x: x)
    with pytest.raises(ValueError, match="has no digest: pass `version`"):
        _ = prepared.digest
    one, two = constant(1.0, 2.0), constant(2.0, 1.0)
    assert one.digest != two.digest
    assert Teacher([one, two]).digest != Teacher([two, one]).digest
    assert Teacher([one, two]).digest != Teacher([one, two], shares=[1, 2]).digest
