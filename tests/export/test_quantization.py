import numpy as np
import pytest
import tensorflow as tf
from ai_edge_litert.interpreter import Interpreter
from ai_edge_litert.schema_py_generated import TensorType

from keras_deit.export.quantization import (
    calibrate,
    calibration_views,
    quantize,
    stream_tensors,
)
from keras_deit.export.tflite_file import operator_name, parse, signature_graphs

SIZE, DIM, KEPT = (8, 8), 16, 5
RANDOM = np.random.default_rng(0)
WEIGHTS = {
    name: RANDOM.normal(size=shape, scale=0.3).astype(np.float32)
    for name, shape in (
        ("embed", (4 * 3, DIM)),
        ("query", (DIM, DIM)),
        ("value", (DIM, DIM)),
        ("hidden", (DIM, 3)),
    )
}


def block(tokens, num_kept):
    """Attention whose row sums rank the tokens, a residual, a norm and a layer."""
    query, value = (tf.matmul(tokens, WEIGHTS[name]) for name in ("query", "value"))
    scores = tf.matmul(query[None], value[None], transpose_b=True)  # (1, N, N)
    attention = tf.nn.softmax(scores)
    tokens += tf.matmul(attention, value[None])[0]  # (N, D)
    _, order = tf.math.top_k(tf.reduce_mean(attention, axis=1)[0], num_kept)
    tokens = tf.gather(tokens, order)
    mean, variance = tf.nn.moments(tokens, axes=[-1], keepdims=True)
    tokens = (tokens - mean) * tf.math.rsqrt(variance + 1e-6)
    return tf.matmul(tokens, WEIGHTS["hidden"])


def converter_of(folder, kept):
    """A converter of a small transformer; a signature for each number of tokens."""
    module = tf.Module()
    for name, num_kept in kept.items():

        def function(pixels, num_kept=num_kept):
            patches = tf.reshape(pixels / 255, (-1, WEIGHTS["embed"].shape[0]))
            tokens = tf.nn.gelu(tf.matmul(patches, WEIGHTS["embed"]))
            return {"logits": tf.reduce_mean(block(tokens, num_kept), axis=0)}

        spec = tf.TensorSpec((1, *SIZE, 3), tf.float32, "pixels")
        setattr(module, name, tf.function(function, input_signature=[spec]))
    signatures = {name: getattr(module, name) for name in kept}
    tf.saved_model.save(module, str(folder), signatures)
    return tf.lite.TFLiteConverter.from_saved_model(str(folder))


@pytest.fixture(scope="module")
def views():
    return RANDOM.integers(40, 200, (6, *SIZE, 3)).astype(np.uint8)


@pytest.fixture(scope="module")
def calibrated(tmp_path_factory, views):
    kept = {"all": 16, "few": KEPT}
    converter = converter_of(tmp_path_factory.mktemp("q") / "model", kept)
    return calibrate(converter, calibration_views(views), kept)


@pytest.fixture(scope="module")
def content(calibrated):
    return quantize(calibrated)


def outputs_of(content, signature):
    """The type of what each operator of a signature gives, by the operator's name."""
    model = parse(content)
    graph = model.subgraphs[signature_graphs(model)[signature]]
    types = {}
    for operator in graph.operators:
        of_this = types.setdefault(operator_name(model, operator), set())
        of_this.update(graph.tensors[t].type for t in operator.outputs)
    return types


def test_a_corner_is_black_and_one_is_white_in_each_view(views):
    marked = calibration_views(views)
    assert marked.dtype == np.float32
    assert (marked[:, 0, 0] == 0).all()
    assert (marked[:, -1, -1] == 255).all()
    assert views.min() >= 40  # it is a copy
    marked[:, 0, 0], marked[:, -1, -1] = views[:, 0, 0], views[:, -1, -1]
    np.testing.assert_array_equal(marked, views)


@pytest.mark.parametrize("signature", ["all", "few"])
def test_layers_with_weights_are_integer_and_the_stream_is_not(content, signature):
    types = outputs_of(content, signature)
    for name in ("FULLY_CONNECTED", "GELU"):
        assert types[name] == {TensorType.INT8}
    float_operators = ("BATCH_MATMUL", "SOFTMAX", "ADD", "RSQRT", "SQUARED_DIFFERENCE")
    for name in float_operators:
        assert types[name] == {TensorType.FLOAT32}
    assert types["MUL"] == {TensorType.FLOAT32, TensorType.INT8}  # of pixels, int8


def test_tokens_are_ranked_in_float(content):
    types = outputs_of(content, "few")
    assert types["TOPK_V2"] == {TensorType.FLOAT32, TensorType.INT32}
    assert types["GATHER"] == {TensorType.FLOAT32}


def test_the_stream_begins_behind_the_layers_and_ends_before_them(calibrated):
    names = stream_tensors(calibrated)
    assert names == sorted(set(names))
    for part in ("add", "Rsqrt", "GatherV2", "TopKV2"):
        assert any(part in name for name in names)
    for part in ("MatMul", "truediv", "Gelu", "Softmax"):
        assert not any(name.split(";")[0].endswith(part) for name in names)


def test_takes_raw_pixels_and_returns_floats(content, views):
    runner = Interpreter(model_content=content).get_signature_runner("all")
    pixels = runner.get_input_details()["pixels"]
    assert pixels["dtype"] is np.uint8
    assert pixels["quantization"] == (1.0, 0)
    for view in views:
        patches = view.reshape(-1, 12) / np.float32(255)
        tokens = tf.nn.gelu(patches @ WEIGHTS["embed"])
        expected = tf.reduce_mean(block(tokens, num_kept=16), axis=0)
        received = runner(pixels=view[None])["logits"]
        assert received.dtype == np.float32
        np.testing.assert_allclose(received, expected, atol=0.1)


def test_ranges_that_do_not_reach_black_and_white_are_refused(tmp_path, views):
    converter = converter_of(tmp_path / "model", {"all": 16})
    calibrated = calibrate(converter, views.astype(np.float32), ["all"])
    message = r"must take raw uint8 pixels: scale 1, .*signature='all', .*\(0\.78"
    with pytest.raises(RuntimeError, match=message):
        quantize(calibrated)
