import numpy as np
import pytest
import tensorflow as tf

from keras_deit.data import fused as module
from keras_deit.data.fused import LARGE, fused, has_xla, rounded
from keras_deit.data.rand_augment import OPERATIONS, argument_of
from tests.data.pictures import noise, smooth

SIDE = 128  # of the smallest square that is compiled


def recorder(seen):
    """An operation that notes whether it is compiled: then its image is symbolic."""

    @fused
    def operation(image, addend):
        seen.append(tf.is_symbolic_tensor(image))
        return image + tf.cast(addend, tf.uint8)

    return operation


def blank(height, width):
    return tf.zeros((height, width, 3), tf.uint8)


def test_large_images_alone_are_compiled_and_once_for_a_size():
    seen = []
    operation = recorder(seen)
    one = tf.constant(1, tf.uint8)
    assert operation(blank(SIDE, SIDE - 1), one).numpy().min() == 1
    assert seen == [False]
    for addend in (1, 2):
        assert operation(blank(SIDE, SIDE), addend).numpy().min() == addend
    assert seen == [False, True]
    assert SIDE * SIDE == LARGE


def test_where_there_is_no_xla_nothing_is_compiled(monkeypatch):
    seen = []
    monkeypatch.setattr(module, "has_xla", lambda: False)
    recorder(seen)(blank(SIDE, SIDE), tf.constant(1, tf.uint8))
    assert seen == [False]


def test_xla_is_missing_where_a_function_cannot_be_compiled(monkeypatch):
    def refuse(*arguments, **options):
        raise tf.errors.UnimplementedError(None, None, "no compiler")

    assert has_xla()
    monkeypatch.setattr(module.tf, "function", refuse)
    assert not has_xla.__wrapped__()


@pytest.mark.parametrize(("kind", "step"), [(tf.float64, 2**-30), (tf.float32, 2**-13)])
def test_a_product_is_rounded_before_it_is_added_to(kind, step):
    # (1 + s) (1 - s) = 1 - s^2, rounded 1: less 1, nothing; rounded once, -s^2.
    above, below, one = (
        tf.fill([64], tf.cast(x, kind)) for x in (1 + step, 1 - step, 1)
    )
    function = tf.function(
        lambda a, b, c: rounded(a * b) - c, jit_compile=True, autograph=False
    )
    assert not np.any(function(above, below, one))


def both_ways(name, image, argument, monkeypatch):
    image, argument = tf.constant(image), tf.constant(argument)
    at_once = OPERATIONS[name](image, argument)
    with monkeypatch.context() as patch:
        patch.setattr(module, "LARGE", np.inf)
        return at_once, OPERATIONS[name](image, argument)


# Compiled or not, they have the bytes of PIL.
@pytest.mark.parametrize("name", ["AutoContrast", "ColorIncreasing", "ShearX"])
def test_a_compiled_operation_gives_the_same_bytes(name, monkeypatch):
    argument = argument_of(name, np.float32(9.3), np.float32(-1))
    image = 90 + noise(SIDE, SIDE) // 3
    np.testing.assert_array_equal(*both_ways(name, image, argument, monkeypatch))


@pytest.mark.slow
@pytest.mark.parametrize("name", OPERATIONS)
def test_every_compiled_operation_gives_the_same_bytes(name, monkeypatch):
    for image in (noise(224, 224), smooth(224, 224), 90 + smooth(224, 224) // 3):
        for magnitude, sign in ((10, 1), (9.3, -1), (5, 1), (0, 1)):
            argument = argument_of(name, np.float32(magnitude), np.float32(sign))
            np.testing.assert_array_equal(
                *both_ways(name, image, argument, monkeypatch)
            )


@pytest.mark.slow
def test_a_compiled_operation_gives_the_same_bytes_inside_tf_data():
    image = tf.constant(smooth(160, 128))
    angles = np.float32([3, -27, 30, 11.5])
    turn = OPERATIONS["Rotate"]
    turned = tf.data.Dataset.from_tensor_slices(angles).map(
        lambda angle: turn(image, angle), 4, deterministic=True
    )
    eagerly = [turn(image, tf.constant(angle)) for angle in angles]
    for _ in range(2):  # a second iterator
        np.testing.assert_array_equal(list(turned), eagerly)
