import numpy as np
import pytest
import tensorflow as tf

from keras_deit.data.imagenet import (
    NUM_CLASSES,
    among_imagenet,
    imagenet_names,
    imagenet_synsets,
)
from keras_deit.data.source import indexed_source


@pytest.fixture
def keras_names(monkeypatch):
    """`keras_names(function)` stands for Keras' `decode_predictions`."""

    def patch(function):
        monkeypatch.setattr(
            "keras.applications.imagenet_utils.decode_predictions", function
        )

    return patch


def source_of(class_names):
    """A source with one image of each class, whose grey is its label."""
    pixels = tf.cast(tf.range(len(class_names)), tf.uint8)

    def grey(index):
        return tf.fill((1, 1, 3), tf.gather(pixels, index))

    labels = range(len(class_names))
    return indexed_source("birds", class_names, labels, grey, "", ["a.png"])


def test_the_synsets_are_those_of_the_published_weights():
    synsets = imagenet_synsets()
    assert len(set(synsets)) == len(synsets) == NUM_CLASSES
    assert list(synsets) == sorted(synsets)
    known = {0: "n01440764", 2: "n01484850", 281: "n02123045", 999: "n15075141"}
    assert {label: synsets[label] for label in known} == known


def test_the_names_follow_the_labels_with_spaces_between_words(keras_names):
    def decode(predictions, top):
        # As Keras does: the best first, from what is index in its file.
        assert predictions.shape == (1, NUM_CLASSES)
        best = np.argsort(-predictions[0])[:top]
        return [[(f"n{i:08}", f"white_shark_{i}", predictions[0, i]) for i in best]]

    keras_names(decode)
    names = imagenet_names()
    assert names == tuple(f"white shark {label}" for label in range(NUM_CLASSES))


def test_what_keras_says_of_its_download_is_no_output(keras_names, capsys):
    def decode(predictions, top):
        print("Downloading data from https://somewhere")
        return [[("n01440764", "tench", 1.0)] * top]

    keras_names(decode)
    assert imagenet_names()[0] == "tench"
    said = capsys.readouterr()
    assert (said.out, said.err) == ("", "Downloading data from https://somewhere\n")


@pytest.mark.parametrize(
    ("error", "reason"),
    [(OSError("no network\nat all"), "no network"), (MemoryError(), "MemoryError")],
)
def test_without_names_the_synsets_stand_for_them(keras_names, capsys, error, reason):
    def fail(predictions, top):
        raise error

    keras_names(fail)
    assert imagenet_names() == imagenet_synsets()
    said = capsys.readouterr()
    assert said.out == ""
    assert said.err == f"No names for ImageNet's classes, only ids: {reason}\n"


def test_the_labels_of_a_dataset_become_those_of_imagenet():
    # Labels 0, 1, 2 of the dataset, in another order than ImageNet's.
    source = source_of(["n02123045", "n01440764", "n15075141"])
    relabeled = among_imagenet(source)
    assert relabeled.class_names == imagenet_synsets()
    examples = list(relabeled.in_order())
    assert [int(e["label"]) for e in examples] == [281, 0, 999]
    assert examples[0]["label"].dtype == tf.int64
    assert [int(e["image"][0, 0, 0]) for e in examples] == [0, 1, 2]
    assert [int(e["id"]) for e in examples] == [0, 1, 2]
    assert (relabeled.name, relabeled.num_examples) == ("birds", 3)
    assert relabeled.paths == ("a.png",)


def test_the_labels_follow_the_images_in_any_order():
    source = source_of(imagenet_synsets()[10:40])
    relabeled = among_imagenet(source)
    pairs = [(int(e["id"]), int(e["label"])) for e in relabeled.shuffled(3, 2)]
    assert pairs == [(i, 10 + i) for i in (int(e["id"]) for e in source.shuffled(3, 2))]


def test_classes_that_are_called_otherwise_are_refused():
    rule = (
        r"For a model of ImageNet's 1000 classes, .* WordNet ids, for instance "
        r"n01440764\. Received: dataset='birds', unknown=\['a', 'b', 'c', 'd', 'e'\]\.$"
    )
    with pytest.raises(ValueError, match=rule):
        among_imagenet(source_of([*"fedcba", "n01440764"]))
