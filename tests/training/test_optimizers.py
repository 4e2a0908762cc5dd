import numpy as np
import pytest

from keras_deit.models.factory import build_model
from keras_deit.training.optimizers import adamw

SPARED = ("bias", "gamma", "beta", "token", "position", "embedding")


@pytest.fixture(scope="module", params=["vit", "regnet"])
def model(request):
    if request.param == "regnet":
        return build_model("regnety_micro_32", 5, depth=2)
    return build_model("deit_micro_distilled_patch4_32", 5, depth=1, embed_dim=8)


def step_without_gradient(model, optimizer):
    """The share that is left of each weight of ones, by the weight's path."""
    for weight in model.trainable_weights:
        weight.assign(np.ones(weight.shape))
    zeros = [np.zeros(weight.shape, "float32") for weight in model.trainable_weights]
    optimizer.apply(zeros, model.trainable_weights)
    left = {w.path: np.unique(np.asarray(w.value)) for w in model.trainable_weights}
    assert {x.shape for x in left.values()} == {(1,)}
    return {path: float(x[0]) for path, x in left.items()}


def test_a_step_without_gradient_takes_its_share_of_the_kernels_and_nothing_else(model):
    # The decay takes away 0.1 * 0.5 = 5 % of a kernel.
    left = step_without_gradient(model, adamw(model, 0.1, weight_decay=0.5))
    kernels = {path for path in left if path.endswith("/kernel")}
    assert len(kernels) > 5
    for path, share in left.items():
        assert share == pytest.approx(0.95 if path in kernels else 1.0), path
    for path in left.keys() - kernels:
        assert any(word in path.rpartition("/")[2] for word in SPARED), path


def test_without_decay_nothing_changes():
    model = build_model("deit_micro_patch4_32", 5, depth=1, embed_dim=8)
    left = step_without_gradient(model, adamw(model, 0.1, weight_decay=0.0))
    assert set(left.values()) == {1.0}


def test_has_the_betas_and_the_epsilon_of_the_official_code(model):
    optimizer = adamw(model, 0.1, weight_decay=0.05)
    assert (optimizer.beta_1, optimizer.beta_2, optimizer.epsilon) == (0.9, 0.999, 1e-8)
