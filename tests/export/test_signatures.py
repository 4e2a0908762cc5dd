import shutil

import numpy as np
import pytest
import tensorflow as tf
from tensorflow.core.protobuf import saved_model_pb2

from keras_deit.data.bounded import STATUS
from keras_deit.export.signatures import ServedModel

LABELS = ("red", "green", "blue")
OUTPUTS = {"logits", "probabilities", "top_k_classes", "top_k_scores", "top_k_labels"}


@pytest.fixture(scope="module")
def folder(tmp_path_factory, small_model):
    """Serves the mean color: the logits are red, green and blue, over 100."""
    place = tmp_path_factory.mktemp("signatures")
    labels = place / "labels.txt"
    labels.write_text("".join(f"{label}\n" for label in LABELS))

    def color(pixels):
        return tf.reduce_mean(pixels, (1, 2)) / 100

    def dark(pixels):
        return color(pixels / 2)

    served = ServedModel(small_model, labels, 5, max_bytes=5_000, max_pixels=10_000)
    answers = {"serving_default": color, "keep_50": dark, "keep_100": color}
    names = served.write(place / "saved", answers)
    assert names == ["serving_default", "keep_50", "keep_100", "pixels", "float"]
    return place / "saved"


@pytest.fixture(scope="module")
def signatures(folder):
    return tf.saved_model.load(str(folder)).signatures


def plain(color, size=(40, 50)):
    return tf.io.encode_png(np.full((*size, 3), color, np.uint8)).numpy()


def answered(signature, **arguments):
    arguments = {name: tf.constant(value) for name, value in arguments.items()}
    return {name: value.numpy() for name, value in signature(**arguments).items()}


def test_the_answers_are_worked_out_by_hand(signatures):
    batch = [plain((200, 100, 0)), plain((0, 100, 50), size=(9, 7))]
    answer = answered(signatures["serving_default"], image_bytes=batch)
    assert set(answer) == {*OUTPUTS, "status"}
    np.testing.assert_allclose(answer["logits"], [[2, 1, 0], [0, 1, 0.5]], atol=1e-6)
    e = np.exp([2.0, 1.0, 0.0])
    np.testing.assert_allclose(answer["probabilities"][0], e / e.sum(), rtol=1e-5)
    np.testing.assert_allclose(answer["top_k_scores"][0], e / e.sum(), rtol=1e-5)
    assert answer["top_k_classes"].tolist() == [[0, 1, 2], [1, 2, 0]]  # all there are
    assert answer["top_k_labels"][1].tolist() == [b"green", b"blue", b"red"]
    assert answer["status"].tolist() == [b"ok", b"ok"]
    dark = answered(signatures["keep_50"], image_bytes=batch)
    np.testing.assert_allclose(dark["logits"], answer["logits"] / 2, atol=1e-6)


def test_an_image_that_cannot_be_answered_fails_no_other(signatures):
    good = plain((200, 100, 0))
    batch = {
        b"": "not_decodable",
        good: "ok",
        b"hello": "not_decodable",
        good[:-20]: "not_decodable",
        plain((1, 1, 1), size=(200, 51)): "too_many_pixels",
        good + bytes(5_000): "too_many_bytes",
    }
    answer = answered(signatures["serving_default"], image_bytes=list(batch))
    assert [status.decode() for status in answer["status"]] == list(batch.values())
    assert set(batch.values()) == set(STATUS)
    alone = answered(signatures["serving_default"], image_bytes=[good])
    failed = [0, 2, 3, 4, 5]
    for name in OUTPUTS:
        np.testing.assert_array_equal(answer[name][1], alone[name][0])
    for name in ("logits", "probabilities", "top_k_scores"):
        assert not answer[name][failed].any()
    assert (answer["top_k_classes"][failed] == -1).all()
    assert (answer["top_k_labels"][failed] == b"").all()


def test_no_image_has_no_answers(signatures):
    answer = answered(signatures["serving_default"], image_bytes=np.zeros(0, "S1"))
    assert answer["logits"].shape == (0, 3)


def test_pixels_are_bytes_or_floats(signatures):
    pixels = np.full((2, 32, 32, 3), (0, 50, 100), np.uint8)
    answer = answered(signatures["pixels"], pixels=pixels)
    assert set(answer) == OUTPUTS
    np.testing.assert_allclose(answer["logits"], [[0, 0.5, 1]] * 2, atol=1e-6)
    floats = answered(signatures["float"], pixels=pixels.astype(np.float32))
    np.testing.assert_array_equal(floats["logits"], answer["logits"])


def test_labels_are_an_asset_that_can_be_changed(folder, tmp_path):
    assert (folder / "assets" / "labels.txt").read_text().split() == list(LABELS)
    copy = tmp_path / "copy"
    shutil.copytree(folder, copy)
    (copy / "assets" / "labels.txt").write_text("rot\ngr\u00fcn\nblau")
    signatures = tf.saved_model.load(str(copy)).signatures
    answer = answered(signatures["serving_default"], image_bytes=[plain((0, 1, 99))])
    names = [label.decode() for label in answer["top_k_labels"][0]]
    assert names == ["blau", "gr\u00fcn", "rot"]


def test_the_graph_that_decodes_is_shared(folder):
    content = (folder / "saved_model.pb").read_bytes()
    graph = saved_model_pb2.SavedModel.FromString(content).meta_graphs[0].graph_def
    nodes = [node.op for f in graph.library.function for node in f.node_def]
    assert nodes.count("ExtractJpegShape") == 1
