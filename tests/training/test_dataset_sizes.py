import pytest

from keras_deit.data.sources import load_source
from keras_deit.training.dataset_sizes import DATASETS, DatasetSize, dataset_size
from trainers.recipes import find_recipe, list_recipes


def test_knows_the_datasets_of_the_recipes():
    named = {find_recipe(name).dataset for name in list_recipes()}
    assert named <= DATASETS.keys()
    assert dataset_size("imagenet2012") == DatasetSize(1_281_167, 1_000, 115.4)


def test_the_digits_are_as_many_as_are_found():
    digits, size = load_source("digits", "train"), dataset_size("digits")
    assert size.num_examples == digits.num_examples
    assert size.num_classes == len(digits.class_names)


def test_what_is_given_comes_first():
    given = dataset_size("imagenet2012", num_examples=5, file_kilobytes=2.0)
    assert given == DatasetSize(5, 1_000, 2.0)
    assert dataset_size("my/images", 7, 2) == DatasetSize(7, 2, None)


@pytest.mark.parametrize("given", [{}, {"num_examples": 5}, {"num_classes": 2}])
def test_asks_for_what_it_does_not_know(given):
    with pytest.raises(
        ValueError, match=r"`num_examples` and `num_classes` must be gi"
    ):
        dataset_size("my/images", **given)


@pytest.mark.parametrize("name", ["num_examples", "num_classes", "file_kilobytes"])
def test_refuses_numbers_that_are_not_positive(name):
    with pytest.raises(ValueError, match=f"`{name}` must be positive"):
        dataset_size("digits", **{name: 0})
