import keras
import numpy as np
import pytest

from keras_deit.layers.prefix_tokens import PREFIX_TOKENS, PrefixTokens
from tests.contracts import hold_layer_to_contract


def layer_of_width_one(num_tokens):
    layer = PrefixTokens(num_tokens)
    layer.build((None, 2, 1))
    for weight in layer.weights:
        weight.assign(
            [[[{"class_token": 7.0, "distillation_token": 8.0}[weight.name]]]]
        )
    return layer


def test_class_token_stands_first_by_hand():
    patches = np.array([[[1.0], [2.0]], [[3.0], [4.0]]])
    output = layer_of_width_one(1)(patches)
    np.testing.assert_array_equal(output[..., 0], [[7, 1, 2], [7, 3, 4]])


def test_distillation_token_stands_second_by_hand():
    patches = np.array([[[1.0], [2.0]], [[3.0], [4.0]]])
    output = layer_of_width_one(2)(patches)
    np.testing.assert_array_equal(output[..., 0], [[7, 8, 1, 2], [7, 8, 3, 4]])
    assert PREFIX_TOKENS == ("class", "distillation")


def test_has_the_class_token_alone_by_default():
    layer = PrefixTokens()
    layer.build((None, 2, 4))
    assert [(w.name, w.shape) for w in layer.weights] == [("class_token", (1, 1, 4))]


def test_starts_normal_and_uncut_each_token_on_its_own():
    keras.utils.set_random_seed(0)
    layer = PrefixTokens(2)
    layer.build((None, 2, 4000))
    first, second = layer.get_weights()
    for token in (first, second):
        np.testing.assert_allclose(token.std(), 0.02, rtol=0.1)
        assert np.abs(token).max() > 0.04
    assert not np.array_equal(first, second)


@pytest.mark.parametrize("num_tokens", [1, 2])
def test_holds_the_contract(num_tokens):
    patches = np.random.default_rng(0).normal(size=(2, 5, 8)).astype("float32")
    hold_layer_to_contract(PrefixTokens(num_tokens), patches)


@pytest.mark.parametrize("num_tokens", [0, 3])
def test_refuses_another_number_of_tokens(num_tokens):
    rule = r"`num_tokens` must be 1 \(class\) or 2 \(class and distillation\). "
    with pytest.raises(ValueError, match=f"{rule}Received: num_tokens={num_tokens}"):
        PrefixTokens(num_tokens)
