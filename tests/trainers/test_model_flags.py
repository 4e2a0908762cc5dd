import numpy as np
import pytest
from absl import flags

from keras_deit.models.inference import HEADS, input_size
from keras_deit.models.reorganization import with_keep_rate
from keras_deit.weights.create import create_model
from keras_deit.weights.pretrained import PRETRAINED
from trainers import _model_flags

NAME = "deit_micro_patch4_32"


def parsed(*arguments):
    values = flags.FlagValues()
    _model_flags.define(values)
    _model_flags.define_head(values)
    values(["program", *map(str, arguments)])
    return values


def load(*arguments):
    return _model_flags.load(parsed(*arguments))


def logits(model):
    size = (2, *input_size(model), 3)
    pixels = np.random.default_rng(0).integers(0, 256, size)
    return model(pixels.astype("float32"), training=False).numpy()


@pytest.fixture
def model(micro_weights):
    return create_model(NAME, 10, weights=micro_weights)


@pytest.fixture
def keras_file(model, tmp_path):
    path = tmp_path / "model.keras"
    model.save(path)
    return path


def test_a_variant_gets_the_weights_of_a_file(model, micro):
    np.testing.assert_array_equal(logits(load(*micro)), logits(model))


def test_a_keras_file_is_taken_as_it_is(model, keras_file):
    loaded = load(f"--model={keras_file}")
    np.testing.assert_array_equal(logits(loaded), logits(model))


def test_the_published_weights_are_the_default(monkeypatch, model, micro_weights):
    monkeypatch.setitem(PRETRAINED, NAME, PRETRAINED["deit_tiny_patch16_224"])
    monkeypatch.setattr(
        "keras_deit.weights.pretrained.pretrained_file",
        {NAME: micro_weights}.__getitem__,
    )
    loaded = load(f"--model={NAME}", "--num_classes=10")
    np.testing.assert_array_equal(logits(loaded), logits(model))


def test_a_head_without_weights_answers_nothing(micro):
    rule = "for another number of classes: give it, --num_classes=N. Received: weights="
    with pytest.raises(ValueError, match=rule):
        load(*micro, "--num_classes=3")


def test_a_keras_file_is_a_model_and_no_weights(keras_file):
    rule = "A .keras file is a model with options of its own: give it as --model. "
    with pytest.raises(ValueError, match=f"{rule}Received: weights="):
        load(f"--model={NAME}", f"--weights={keras_file}")


def test_a_wrong_keep_rate_is_refused_before_anything_is_loaded():
    with pytest.raises(ValueError, match=r"`keep_rate` must be in \(0, 1\]"):
        load("--model=gone.keras", "--keep_rate=2")


@pytest.mark.parametrize(
    ("size", "expected"), [("48", (48, 48)), ("32,64", (32, 64)), ("40, 48", (40, 48))]
)
def test_a_variant_may_have_another_input(micro, micro_weights, capsys, size, expected):
    loaded = load(*micro, f"--image_size={size}")
    assert input_size(loaded) == expected
    assert "resampled: position_embedding/embedding" in capsys.readouterr().err
    twin = create_model(NAME, 10, expected, weights=micro_weights)
    np.testing.assert_array_equal(logits(loaded), logits(twin))


def test_the_keep_rate_of_a_variant_or_a_file_may_be_another(model, micro, keras_file):
    expected = logits(with_keep_rate(model, 0.25))
    assert np.abs(expected - logits(model)).max() > 1e-3
    for flags_of_model in (micro, (f"--model={keras_file}",)):
        fewer = load(*flags_of_model, "--keep_rate=0.25")
        np.testing.assert_array_equal(logits(fewer), expected)


@pytest.mark.parametrize(
    "flag", ["--weights=a.pth", "--num_classes=10", "--image_size=32"]
)
def test_flags_of_a_variant_are_refused_with_a_keras_file(keras_file, flag):
    name = flag.partition("=")[0]
    rule = rf"A \.keras file is whole: {name} is for the name of a variant\. Received: "
    with pytest.raises(ValueError, match=rule + f"--model={keras_file}"):
        load(f"--model={keras_file}", flag)


def test_a_name_that_is_no_variant_is_refused_with_the_nearest():
    rule = (
        r"`--model` must be a \.keras file, or the name of a variant \(python -m tr.*"
    )
    hint = r"Did you mean 'deit_micro_patch4_32'\? Received: model='deit_micro_pach4_32"
    with pytest.raises(ValueError, match=rule + hint):
        load("--model=deit_micro_pach4_32")
    with pytest.raises(ValueError, match=rule + r"them\)\. Received: model='/m\.pth'"):
        load("--model=/m.pth")


def test_a_variant_without_published_weights_needs_a_file():
    rule = r"No weights of this variant are published: give a file, --weights=FILE\. R"
    with pytest.raises(ValueError, match=rule):
        load(f"--model={NAME}")


@pytest.mark.parametrize("size", ["", "big", "32x32", "32,-1", "1,2,3", "3.5"])
def test_a_size_that_is_none_is_refused(micro, size):
    rule = r"`--image_size` must be a number of pixels, or height,width\. Received: "
    with pytest.raises(ValueError, match=f"{rule}image_size='{size}'"):
        load(*micro, f"--image_size={size}")


@pytest.mark.parametrize(
    ("flag", "rule"),
    [
        ("--weights=gone.pth", r"There is no file 'gone\.pth'"),
        ("--weights=notes.txt", r"There is no file 'notes\.txt'"),
        ("--num_classes=1", "`num_classes` must be at least 2"),
        ("--keep_rate=0", r"`keep_rate` must be in \(0, 1\]"),
        ("--image_size=0", "`image_size` must be a positive number"),
    ],
)
def test_what_the_library_refuses_is_refused(micro, flag, rule):
    with pytest.raises((ValueError, OSError), match=rule):
        load(*micro, flag)


def test_a_model_without_patch_tokens_has_no_keep_rate(teacher):
    with pytest.raises(ValueError, match="must have encoder blocks that reorganize"):
        load(f"--model={teacher.folder}/last.keras", "--keep_rate=0.5")


@pytest.mark.parametrize(
    "arguments",
    [
        ("--model={}/model.keras",),
        (f"--model={NAME}", "--weights={}/last.weights.h5"),
    ],
)
def test_names_of_classes_lie_beside_the_model_or_its_weights(tmp_path, arguments):
    values = parsed(*(argument.format(tmp_path) for argument in arguments))
    assert _model_flags.class_names(values, 3) == ["0", "1", "2"]
    (tmp_path / "labels.txt").write_text("a cat\na dog\n")
    assert _model_flags.class_names(values, 2) == ["a cat", "a dog"]
    rule = r"labels\.txt` must have one name for each class. .*names=2, classes=3"
    with pytest.raises(ValueError, match=rule):
        _model_flags.class_names(values, 3)


def test_a_name_of_a_variant_has_nothing_to_do_with_where_one_is(
    tmp_path, monkeypatch, names_of_imagenet
):
    (tmp_path / "labels.txt").write_text("cat\ndog\n")
    monkeypatch.chdir(tmp_path)
    values = parsed(f"--model={NAME}")
    assert _model_flags.class_names(values, 2) == ["0", "1"]
    assert _model_flags.class_names(values, 1000) == list(names_of_imagenet)


def test_the_heads_are_those_of_the_library():
    assert _model_flags.HEADS == HEADS
    assert parsed(f"--model={NAME}").head == "fused"
