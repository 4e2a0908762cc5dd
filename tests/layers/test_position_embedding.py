import keras
import numpy as np

from keras_deit.layers.position_embedding import PositionEmbedding
from tests.contracts import fill, hold_layer_to_contract


def test_adds_one_vector_to_each_token_by_hand():
    layer = PositionEmbedding()
    layer.build((None, 3, 1))
    fill(layer, [[[1.0], [2.0], [3.0]]])
    # The same for both images: 10 + 1, 10 + 2, 10 + 3 and 20 + 1, 20 + 2, 20 + 3.
    output = layer(np.array([[[10.0]] * 3, [[20.0]] * 3]))
    np.testing.assert_array_equal(output[..., 0], [[11, 12, 13], [21, 22, 23]])


def test_starts_normal_and_uncut():
    keras.utils.set_random_seed(0)
    layer = PositionEmbedding()
    layer.build((None, 198, 64))
    embedding = layer.embedding.numpy()
    assert embedding.shape == (1, 198, 64)
    np.testing.assert_allclose(embedding.std(), 0.02, rtol=0.05)
    assert np.abs(embedding).max() > 0.04


def test_holds_the_contract():
    tokens = np.random.default_rng(0).normal(size=(2, 5, 8)).astype("float32")
    hold_layer_to_contract(PositionEmbedding(), tokens)
