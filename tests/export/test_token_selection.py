import json

import keras
import numpy as np
import pytest

from keras_deit.export.edge import tflite
from keras_deit.export.token_selection import selection_agreement, shares_kept
from keras_deit.models.factory import build_model
from keras_deit.models.inference import inference_model
from keras_deit.models.reorganization import with_keep_rate


def arrays(*lists):
    return [np.array(values) for values in lists]


@pytest.mark.parametrize(
    ("kept", "orders", "shares"),
    [
        (arrays([3, 1]), arrays([1, 3, 0, 2]), [1.0]),  # in any order
        (arrays([3, 1, 0]), arrays([1, 2, 3, 0]), [2 / 3]),
        (arrays([0, 1]), arrays([3, 2, 1, 0]), [0.0]),
        # [1, 3] stay, and their fused token enters as the third: it and 3 stay.
        (arrays([3, 1], [3, -1]), arrays([1, 3, 0, 2], [2, 1, 0]), [1.0, 1.0]),
        # The fused token is no patch: 3 is the only one, and 1 stayed instead.
        (arrays([3, 1], [3, -1]), arrays([1, 3, 0, 2], [0, 2, 1]), [1.0, 0.0]),
    ],
)
def test_a_share_of_the_patches_that_the_model_keeps(kept, orders, shares):
    assert shares_kept(kept, orders) == pytest.approx(shares)


@pytest.fixture(scope="module")
def models():
    """A model that keeps every token, and the same at half of them, twice."""
    model = build_model(
        "deit_micro_patch4_32",
        3,
        depth=2,
        embed_dim=16,
        num_heads=2,
        reorganize_at=(0, 1),
    )
    random = np.random.default_rng(0)
    for weight in model.trainable_weights:
        weight.assign_add(0.3 * random.normal(size=weight.shape))
    model = inference_model(model)
    return {"serving_default": model, "keep_50": with_keep_rate(model, 0.5)}


@pytest.fixture(scope="module")
def file(models, views, tmp_path_factory):
    path = tmp_path_factory.mktemp("selection") / "m.tflite"
    model = models["serving_default"]
    return tflite(model, path, "float32", images=views, keep_rates=[0.5], verbose=False)


@pytest.fixture(scope="module")
def views():
    return np.random.default_rng(0).integers(0, 256, (3, 32, 32, 3), np.uint8)


def test_a_file_in_float32_keeps_what_its_model_keeps(file, models, views):
    agreement = selection_agreement(file.read_bytes(), models, views)
    assert agreement == {"keep_50": [1.0, 1.0]}
    certificate = json.loads(file.with_suffix(".certificate.json").read_text())
    assert certificate["token_selection_agreement"] == agreement


def test_a_file_of_another_model_keeps_other_tokens(file, models, views):
    # The embedding of another one: who attends to whom changes.
    twin = keras.models.clone_model(models["keep_50"])
    agreement = selection_agreement(file.read_bytes(), {"keep_50": twin}, views)
    assert all(0.1 < share < 0.9 for share in agreement["keep_50"])
