import numpy as np
import pytest
import tensorflow as tf

from keras_deit.export.quantization import calibrate
from keras_deit.export.sensitivity import (
    LayerError,
    csv_of,
    layer_errors,
    layer_path,
    read_sensitivity,
)

LAYERS = {"block_0", "block_1", "fc1", "norm"}


@pytest.mark.parametrize(
    ("tensor", "path"),
    [
        ("vit_1/block_0_1/fc1_1/MatMul;vit_1/block_0_1/fc1_1/BiasAdd", "block_0/fc1"),
        ("vit/block_1/fc1/MatMul", "block_1/fc1"),  # not numbered
        ("vit_1/block_1_2/Gelu/mul_2", "block_1"),
        ("StatefulPartitionedCall:0", ""),
    ],
)
def test_finds_the_layers_in_the_name_of_a_tensor(tensor, path):
    assert layer_path(tensor, LAYERS) == path


@pytest.fixture(scope="module")
def errors(tmp_path_factory):
    """Two layers, one after the other; the second has a channel of far larger range."""
    random = np.random.default_rng(0)
    views = random.integers(0, 256, (8, 4, 4, 3)).astype(np.float32)
    even, uneven = random.normal(size=(2, 16, 16)).astype(np.float32)
    uneven[:, 0] *= 1000

    @tf.function(input_signature=[tf.TensorSpec((1, 4, 4, 3), tf.float32, "pixels")])
    def function(pixels):
        with tf.name_scope("vit"):
            x = tf.reshape(pixels / 255, (3, 16))
            with tf.name_scope("block_0"), tf.name_scope("fc1"):
                x = tf.nn.relu(tf.matmul(x, even))
            with tf.name_scope("block_1"), tf.name_scope("fc1"):
                x = tf.matmul(x, uneven)
            return {"y": x[:, 1:] * 2, "first": x[:, :1] * 2}

    folder = str(tmp_path_factory.mktemp("sensitivity") / "model")
    module = tf.Module()
    module.function = function
    tf.saved_model.save(module, folder, {"serving_default": function})
    converter = tf.lite.TFLiteConverter.from_saved_model(folder)
    calibrated = calibrate(converter, views, ["serving_default"])
    return layer_errors(calibrated, views, LAYERS)


def test_each_operator_that_computes_has_its_error(errors):
    layers = {(e.layer, e.operator) for e in errors}
    assert {("block_0/fc1", "FULLY_CONNECTED"), ("block_1/fc1", "FULLY_CONNECTED")} <= (
        layers
    )
    assert not {"RESHAPE", "STRIDED_SLICE"} & {e.operator for e in errors}


def test_rounding_alone_makes_an_error_of_a_share_of_a_step(errors):
    (first,) = (e for e in errors if e.layer == "block_0/fc1")
    # What is rounded is off by up to half a step, 1 / sqrt(12) = 0.29 in the mean; the
    # 8-bit weights and inputs add to it.
    assert 0.25 < first.steps < 0.6
    assert 0 < first.relative_error < 0.02
    assert first.max_error < 2 * first.scale


def test_the_worst_comes_first(errors):
    assert [e.relative_error for e in errors] == sorted(
        (e.relative_error for e in errors), reverse=True
    )


def test_errors_are_read_as_they_were_written(tmp_path):
    rows = [
        LayerError("block_0/fc1", "GELU", 0.5, 0.25, 1.5, 2.0),
        LayerError("output", "FULLY_CONNECTED", 1e-3, 0.125, 0.1, 0.3),
    ]
    text = csv_of(rows)
    heading = "layer,operator,relative_error,steps,max_error,scale"
    assert text.splitlines()[:2] == [heading, "block_0/fc1,GELU,0.5,0.25,1.5,2.0"]
    (tmp_path / "m.sensitivity.csv").write_text(text)
    assert read_sensitivity(tmp_path / "m.sensitivity.csv") == rows


def test_a_file_that_is_not_there_is_refused(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"m\.sensitivity\.csv"):
        read_sensitivity(tmp_path / "m.sensitivity.csv")
