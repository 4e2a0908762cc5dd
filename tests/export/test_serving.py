import json
import subprocess
import sys
from hashlib import sha256

import numpy as np
import pytest
import tensorflow as tf

from keras_deit import create_model, with_keep_rate
from keras_deit.data.geometry import decode_image, evaluation_view
from keras_deit.export import trials
from keras_deit.export.serving import saved_model
from keras_deit.models.explanation import explanation_model
from keras_deit.models.inference import head_logits

OUTPUTS = {
    "status",
    "logits",
    "probabilities",
    "top_k_classes",
    "top_k_scores",
    "top_k_labels",
}


@pytest.fixture(scope="module")
def versions(tmp_path_factory, model, small_model, images, labels):
    """Version 1 has seven classes with names, version 2 three without."""
    base = tmp_path_factory.mktemp("served") / "models" / "animals"
    return [
        saved_model(model, base, labels, images, timed=False, verbose=False),
        saved_model(small_model, str(base), head="class", timed=False, verbose=False),
    ]


@pytest.fixture(scope="module")
def signatures(versions):
    loaded = [tf.saved_model.load(str(version)) for version in versions]
    return [model.signatures for model in loaded]


@pytest.fixture(scope="module")
def files(images):
    """A JPEG and a PNG."""
    return [
        tf.io.encode_jpeg(images[0]).numpy(),
        tf.io.encode_png(images[1]).numpy(),
    ]


def fused(model, pixels):
    outputs = model(tf.cast(pixels, tf.float32), training=False)
    return head_logits(outputs, "fused").numpy()


def names_in(folder):
    return sorted(path.name for path in folder.iterdir())


def never_equal(monkeypatch):
    """Makes every artifact differ from its model by a hundredth."""
    compare = trials.compare

    def apart(expected, received):
        return compare(expected, np.asarray(received) + 0.01)

    monkeypatch.setattr(trials, "compare", apart)


def test_bytes_of_any_size_are_decoded_resized_and_cropped(signatures, model, files):
    answer = signatures[0]["serving_default"](image_bytes=tf.constant(files))
    views = [evaluation_view(decode_image(one), (48, 40), 0.8) for one in files]
    expected = fused(model, np.stack(views))
    np.testing.assert_allclose(answer["logits"], expected, atol=1e-4)
    assert np.abs(expected[0] - expected[1]).max() > 0.01


def test_pixels_are_taken_as_they_are(signatures, model, images):
    answer = signatures[0]["pixels"](pixels=images[2][None])
    expected = fused(model, images[2][None])
    np.testing.assert_allclose(answer["logits"], expected, atol=1e-4)


def test_the_best_classes_come_first_with_their_names(signatures, files, labels):
    answer = signatures[0]["serving_default"](image_bytes=tf.constant(files))
    answer = {name: tensor.numpy() for name, tensor in answer.items()}
    assert set(answer) == OUTPUTS
    assert answer["logits"].shape == answer["probabilities"].shape == (2, 7)
    expected = np.exp(answer["logits"])
    expected /= expected.sum(axis=1, keepdims=True)
    np.testing.assert_allclose(answer["probabilities"], expected, rtol=1e-5)
    order = np.argsort(-answer["logits"], axis=1)[:, :5]
    np.testing.assert_array_equal(answer["top_k_classes"], order)
    assert answer["top_k_classes"].dtype == np.int32
    scores = np.take_along_axis(answer["probabilities"], order, axis=1)
    np.testing.assert_array_equal(answer["top_k_scores"], scores)
    named = [[label.decode() for label in row] for row in answer["top_k_labels"]]
    assert named == [[labels[c] for c in row] for row in order]


def test_with_fewer_classes_than_asked_for_all_are_named(signatures, images):
    pixels = np.stack([evaluation_view(image, (32, 32), 1.0) for image in images])
    answer = signatures[1]["pixels"](pixels=pixels)
    assert answer["top_k_classes"].shape == (3, 3)
    assert set(answer["top_k_labels"].numpy()[0]) == {b"0", b"1", b"2"}


def test_the_signatures_take_any_batch_size(signatures, files):
    for by_name in signatures:
        assert set(by_name) >= {"serving_default", "pixels"}
        _, inputs = by_name["serving_default"].structured_input_signature
        assert inputs["image_bytes"].shape.as_list() == [None]
        assert inputs["image_bytes"].dtype == tf.string
    _, inputs = signatures[0]["pixels"].structured_input_signature
    assert inputs["pixels"].shape.as_list() == [None, 48, 40, 3]
    assert inputs["pixels"].dtype == tf.uint8
    one = signatures[0]["serving_default"](image_bytes=tf.constant(files[:1]))
    both = signatures[0]["serving_default"](image_bytes=tf.constant(files))
    np.testing.assert_allclose(one["logits"][0], both["logits"][0], atol=1e-5)


def test_every_export_is_the_next_version(versions):
    assert [version.name for version in versions] == ["1", "2"]
    assert names_in(versions[0].parent) == ["1", "2"]


@pytest.mark.slow
def test_the_next_version_is_above_the_largest_and_other_names_do_not_count(
    tmp_path, small_model, images
):
    for name in ("2", "10", "notes", "v99"):
        (tmp_path / name).mkdir()
    version = saved_model(small_model, tmp_path, images=images, top_k=1)
    assert version == tmp_path / "11"
    assert names_in(tmp_path) == ["10", "11", "2", "notes", "v99"]
    signature = tf.saved_model.load(str(version)).signatures["serving_default"]
    assert signature.structured_outputs["top_k_classes"].shape[-1] == 1


def test_floats_are_pixels_too(signatures, images):
    by_name = signatures[0]
    exact = by_name["pixels"](pixels=images[2][None])["logits"]
    received = by_name["float"](pixels=images[2][None].astype(np.float32))["logits"]
    np.testing.assert_array_equal(received, exact)


def test_the_certificate_lies_in_the_folder_of_the_version(versions, images):
    certificate = json.loads((versions[0] / "certificate.json").read_text())
    assert (certificate["kind"], certificate["precision"]) == ("SavedModel", "float32")
    assert certificate["preprocessing"]["crop_ratio"] == 0.8
    assert certificate["model"] == "deit_micro_distilled_patch4_32_fused"
    names = {"serving_default", "pixels", "float"}
    assert set(certificate["signatures"]) == names
    for trial in certificate["signatures"].values():
        assert trial["comparison"]["num_images"] == len(images)
        assert trial["comparison"]["max_difference"] <= 1e-4
        assert trial["comparison"]["top1_agreement"] == 1
    files = sorted(path for path in versions[0].rglob("*") if path.is_file())
    digests = {
        str(path.relative_to(versions[0])): sha256(path.read_bytes()).hexdigest()
        for path in files
        if path.name != "certificate.json"
    }
    assert certificate["sha256"] == digests
    assert certificate["bytes"] == sum(
        (versions[0] / n).stat().st_size for n in digests
    )
    assert {"Conv2D", "DecodeJpeg", "IgnoreErrorsDataset"} <= {
        *certificate["operators"]
    }
    unchecked = json.loads((versions[1] / "certificate.json").read_text())
    assert unchecked["signatures"]["pixels"]["comparison"]["num_images"] == 32  # digits


@pytest.mark.slow
def test_a_dial_shares_the_weights_and_each_rate_is_its_model(
    tmp_path, small_model, images
):
    model = with_keep_rate(small_model, 0.9)
    version = saved_model(
        model,
        tmp_path,
        images=images,
        keep_rates=(1, 0.5),
        explain=True,
        timed=False,
        verbose=False,
    )
    signatures = tf.saved_model.load(str(version)).signatures
    files = tf.constant([tf.io.encode_png(image).numpy() for image in images])
    views = np.stack([evaluation_view(image, (32, 32), 1.0) for image in images])
    rates = {"serving_default": 0.9, "keep_100": 1.0, "keep_50": 0.5}
    for name, rate in rates.items():
        expected = with_keep_rate(small_model, rate)(views, training=False)
        received = signatures[name](image_bytes=files)["logits"]
        np.testing.assert_allclose(received, expected, atol=1e-4)
    explained = signatures["explain"](image_bytes=tf.concat([files, [b"x"]], 0))
    maps = explanation_model(model)(views.astype(np.float32), training=False)
    assert set(explained) == {"status", *maps}
    for name, expected in maps.items():
        np.testing.assert_allclose(explained[name][:3], expected, atol=1e-4)
        assert not explained[name][3].numpy().any()
    variables = version / "variables" / "variables.data-00000-of-00001"
    once = 4 * small_model.count_params()
    assert once < variables.stat().st_size < 2 * once  # and not four times
    certificate = json.loads((version / "certificate.json").read_text())
    assert certificate["signatures"]["keep_50"]["keep_rate"] == 0.5


def test_half_precision_is_frozen_and_half_the_size(tmp_path, model, images, labels):
    version = saved_model(
        model,
        tmp_path,
        labels,
        images,
        precision="bfloat16",
        timed=False,
        verbose=False,
    )
    variables = version / "variables" / "variables.data-00000-of-00001"
    assert variables.stat().st_size < 2_000  # nothing but the counter of checkpoints
    certificate = json.loads((version / "certificate.json").read_text())
    assert certificate["precision"] == "bfloat16"
    found = certificate["signatures"]["serving_default"]["comparison"]
    assert 1e-5 < found["max_difference"] < 0.2
    signature = tf.saved_model.load(str(version)).signatures["pixels"]
    answer = signature(pixels=images[2][None])["logits"]
    np.testing.assert_allclose(answer, fused(model, images[2][None]), atol=0.2)


@pytest.mark.slow
def test_runs_in_a_process_that_has_tensorflow_and_nothing_of_ours(
    versions, files, labels, signatures, tmp_path
):
    for name, content in zip(("a.jpg", "b.png"), files, strict=True):
        (tmp_path / name).write_bytes(content)
    code = """
import sys

sys.modules.update(dict.fromkeys(["keras", "keras_deit", "tf_keras"]))
import tensorflow as tf

model, *images = sys.argv[1:]
signature = tf.saved_model.load(model).signatures["serving_default"]
answer = signature(image_bytes=tf.constant([open(i, "rb").read() for i in images]))
for label, score in zip(answer["top_k_labels"].numpy(), answer["top_k_scores"].numpy()):
    print(label[0].decode(), float(score[0]))
"""
    arguments = [versions[0], tmp_path / "a.jpg", tmp_path / "b.png"]
    done = subprocess.run(
        [sys.executable, "-I", "-c", code, *arguments], capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    here = signatures[0]["serving_default"](image_bytes=tf.constant(files))
    for index, line in enumerate(done.stdout.splitlines()):
        label, score = line.split()
        assert label == here["top_k_labels"][index, 0].numpy().decode()
        assert float(score) == pytest.approx(float(here["top_k_scores"][index, 0]))
    assert index == 1


def test_an_artifact_that_differs_leaves_what_was_there(
    tmp_path, small_model, images, monkeypatch
):
    (tmp_path / "1").mkdir()
    (tmp_path / "1" / "saved_model.pb").write_text("old")
    never_equal(monkeypatch)
    with pytest.raises(RuntimeError, match=r"0\.01.*it is not kept"):
        saved_model(small_model, tmp_path, images=images, timed=False, verbose=False)
    assert names_in(tmp_path) == ["1"]
    assert (tmp_path / "1" / "saved_model.pb").read_text() == "old"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"labels": ["cat"]}, r"`labels` must have one name .* labels=1, classes=3\."),
        ({"images": []}, r"`images` must hold at least one image\."),
        ({"head": "distillation"}, r"The model has one head, 'class'\. Received: head"),
        ({"head": "clas"}, r"`head` must be one of .* Did you mean 'class'\?"),
        (
            {"top_k": 0},
            r"`top_k` must be a whole number in \[1, 2\^31\)\. Received: top_k=0\.",
        ),
        ({"max_bytes": 2**31}, r"`max_bytes` must be a whole number in \[1, 2\^31\)"),
        ({"top_k": 2.5}, r"`top_k` must be a whole number .* Received: top_k=2\.5\."),
        ({"min_agreement": 1.5}, r"`min_agreement` must be in \[0, 1\]\."),
        ({"precision": "float64"}, r"`precision` must be one of .*'float32'\]"),
        (
            {"precision": "bfloat16", "keep_rates": (0.5,)},
            r"`keep_rates` and `explain` need precision='float32'.*keep_rates=\(0\.5",
        ),
        ({"keep_rates": (0.123,)}, r"`keep_rates` must be different whole percents"),
    ],
)
def test_a_bad_argument_is_refused_and_nothing_made(
    tmp_path, small_model, arguments, message
):
    with pytest.raises(ValueError, match=message):
        saved_model(small_model, tmp_path / "models", **arguments)
    assert names_in(tmp_path) == []


def test_a_place_that_cannot_be_written_is_refused(tmp_path, small_model, images):
    (tmp_path / "file").write_text("1")
    with pytest.raises(OSError, match="file"):
        saved_model(small_model, tmp_path / "file", images=images)
    assert (tmp_path / "file").read_text() == "1"


@pytest.mark.slow
def test_a_model_of_mixed_precision_is_exported_in_float32(tmp_path):
    model = create_model(
        "deit_micro_distilled_patch4_32",
        num_classes=3,
        dtype="mixed_bfloat16",
        depth=1,
        embed_dim=16,
        num_heads=2,
    )
    version = saved_model(model, tmp_path / "mixed", timed=False, verbose=False)
    assert (version / "certificate.json").exists()
