"""What holds of the order of every kind of source."""

import tensorflow as tf


def ids(dataset):
    return [int(example["id"]) for example in dataset]


def records(source, seed, epoch, first):
    return ids(source.permuted(seed, epoch, first).map(source.read))


def tails(source, *begun):
    """The ids from each (seed, epoch, first) on, asked with symbols."""
    begun = tf.data.Dataset.from_tensor_slices(tf.constant(begun, tf.int64))
    return ids(
        begun.flat_map(lambda x: source.permuted(x[0], x[1], x[2]).map(source.read))
    )


def contents(dataset):
    """Label and pixels of each image, by its id."""
    return {
        int(x["id"]): (int(x["label"]), x["image"].numpy().tobytes()) for x in dataset
    }


def hold_source_to_its_order(source, window):
    """Every epoch is an order of its own, which can be entered anywhere."""
    natural = contents(source.in_order())
    count = source.num_examples
    assert len(natural) == count
    shuffled = contents(source.shuffled(3, 1))
    assert shuffled == natural  # each id has its image and label in any order
    order = list(shuffled)
    assert order == list(contents(source.shuffled(3, 1)))
    assert order != list(natural) or count < 10  # of few, it can be

    others = tails(source, (3, 2, 0), (4, 1, 0))
    for other in (others[:count], others[count:]):
        assert sorted(other) == sorted(natural)
        assert other != order or count < 10

    entries = [0, 1, window - 1, window, window + 1, count - 1]
    assert tails(source, *((3, 1, first) for first in entries)) == [
        name for first in entries for name in order[first:]
    ]
    assert records(source, 3, 1, window + 1) == order[window + 1 :]  # without symbols
