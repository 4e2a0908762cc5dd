import numpy as np
import pytest
import tensorflow as tf

from keras_deit.distillation.logit_codec import KEEP_LOGITS, LogitCodec


def round_trip(codec, logits):
    """What comes back, decoded in the graph of a data pipeline."""
    logits = np.asarray(logits, "float32")
    payload = codec.encode(logits)
    assert len(payload) == len(logits) * codec.bytes_per_view
    decoded = tf.data.Dataset.from_tensors(payload).map(
        lambda payload: codec.decode(payload, len(logits))
    )
    assert decoded.element_spec == tf.TensorSpec(logits.shape, tf.float32)
    return decoded.get_single_element().numpy()


def softmax(logits, temperature=1.0):
    scaled = np.asarray(logits, "float64") / temperature
    scaled = np.exp(scaled - scaled.max(axis=1, keepdims=True))
    return scaled / scaled.sum(axis=1, keepdims=True)


def divergence(logits, decoded, temperature):
    """KL of the decoded from the original, for each view."""
    p, q = softmax(logits, temperature), softmax(decoded, temperature)
    return np.sum(p * (np.log(p) - np.log(q)), axis=1)


def test_the_largest_by_hand():
    # p = [4, 1, 2, 1] / 8. Kept is class 0; the others have 4/8, a third of it each.
    logits = 5 + np.log([[4.0, 1.0, 2.0, 1.0]])
    codec = LogitCodec(1, 4)
    assert codec.bytes_per_view == 2 + 2 + 2
    kept, class_, rest = (
        np.frombuffer(codec.encode(logits)[i : i + 2], dtype)[0]
        for i, dtype in ((0, "<f2"), (2, "<u2"), (4, "<f2"))
    )
    assert (kept, class_, rest) == (0, 0, 0)  # log(1/4 + 2/4 + 1/4) = 0
    np.testing.assert_allclose(
        softmax(round_trip(codec, logits)), [[1 / 2, 1 / 6, 1 / 6, 1 / 6]], rtol=1e-6
    )


def test_temperature_by_hand():
    # At T = 2 the same logits weigh [2, 1, sqrt 2, 1].
    logits = np.log([[4.0, 1.0, 2.0, 1.0]])
    decoded = round_trip(LogitCodec(2, 4, temperature=2.0), logits)
    total = 4 + np.sqrt(2)
    expected = np.array([[2, 1, np.sqrt(2), 1]]) / total
    np.testing.assert_allclose(softmax(decoded, 2.0), expected, rtol=5e-4)


def test_all_is_exact():
    logits = np.random.default_rng(0).normal(0, 1e3, (5, 7)).astype("float32")
    codec = LogitCodec("all", 7)
    assert codec.bytes_per_view == 28
    np.testing.assert_array_equal(round_trip(codec, logits), logits)


@pytest.mark.parametrize(
    ("num_classes", "size"), [(3, 2), (65536, 2), (65537, 4), (70000, 4)]
)
def test_hard_is_the_argmax_of_however_many_classes(num_classes, size):
    logits = np.zeros((2, num_classes))
    logits[0, num_classes - 1] = 1  # the last class; in view 1 all are equal
    codec = LogitCodec("hard", num_classes)
    assert codec.bytes_per_view == size
    expected = np.zeros((2, num_classes))
    expected[0, -1] = expected[1, 0] = 1
    np.testing.assert_array_equal(round_trip(codec, logits), 1e4 * (expected - 1))


def test_the_largest_of_very_many_classes():
    logits = np.zeros((2, 70000))
    logits[0, 69999], logits[1, 65536] = 30, 30
    codec = LogitCodec(3, 70000)
    assert codec.bytes_per_view == 3 * (2 + 4) + 2
    np.testing.assert_allclose(
        softmax(round_trip(codec, logits)), softmax(logits), rtol=5e-3
    )


@pytest.mark.parametrize("temperature", [1.0, 3.0])
@pytest.mark.parametrize("scale", [0.5, 3.0])
def test_kept_classes_have_their_probability_and_the_rest_is_even(temperature, scale):
    logits = np.random.default_rng(1).normal(0, scale, (64, 1000)).astype("float32")
    codec = LogitCodec(16, 1000, temperature)
    assert codec.bytes_per_view == 66
    decoded = round_trip(codec, logits)
    p, q = softmax(logits, temperature), softmax(decoded, temperature)
    kept = np.argsort(-logits, axis=1)[:, :16]
    near = {"rtol": 6e-3}  # half precision of a log of up to 8
    p_kept, q_kept = (np.take_along_axis(x, kept, 1) for x in (p, q))
    np.testing.assert_allclose(q_kept, p_kept, **near)
    np.put_along_axis(q, kept, np.nan, axis=1)
    rest = np.broadcast_to((1 - p_kept.sum(1, keepdims=True)) / 984, q.shape)
    np.testing.assert_allclose(q[~np.isnan(q)], rest[~np.isnan(q)], **near)


@pytest.mark.parametrize(
    ("scale", "temperature", "most"),
    [(6.0, 1.0, 0.08), (6.0, 3.0, 0.7), (1.0, 1.0, 0.35), (1.0, 3.0, 0.05)],
)
def test_the_divergence_is_that_of_an_even_rest_and_no_more(scale, temperature, most):
    logits = np.random.default_rng(2).normal(0, scale, (64, 1000)).astype("float32")
    decoded = round_trip(LogitCodec(16, 1000, temperature), logits)
    found = divergence(logits, decoded, temperature)
    even = -np.sort(-softmax(logits, temperature), axis=1)
    even[:, 16:] = even[:, 16:].mean(axis=1, keepdims=True)
    ideal = divergence(
        np.sort(logits)[:, ::-1], temperature * np.log(even), temperature
    )
    np.testing.assert_allclose(found, ideal, atol=2e-5)
    assert found.mean() < most
    nothing_known = divergence(logits, np.zeros_like(logits), temperature)
    assert (found < nothing_known).all()


def test_what_is_kept_but_for_one_is_the_original():
    logits = np.random.default_rng(3).normal(0, 2, (64, 10)).astype("float32")
    decoded = round_trip(LogitCodec(9, 10), logits)
    assert divergence(logits, decoded, 1.0).max() < 1e-6


@pytest.mark.parametrize("keep", [*KEEP_LOGITS, 2])
def test_some_views_are_decoded_like_all(keep):
    logits = np.random.default_rng(0).normal(0, 3, (6, 5)).astype("float32")
    codec, places = LogitCodec(keep, 5), np.array([0, 1, 4, 5])
    payload = tf.constant(codec.encode(logits))
    whole, some = codec.decode(payload, 6), codec.decode(payload, 6, places)
    np.testing.assert_array_equal(some, whole.numpy()[places])


@pytest.mark.parametrize("keep", [1, 2, 4])
@pytest.mark.parametrize("temperature", [0.001, 1.0, 1000.0])
def test_extreme_logits_stay_finite_and_keep_their_argmax(keep, temperature):
    most = np.finfo(np.float32).max
    logits = np.array(
        [
            [1e4, -1e4, 0.0, 1.0, 2.0],
            [-1e4, -1e4, -1e4, 1e4, -1e4],
            [0.0, 0.0, 0.0, 0.0, 0.0],
            [-1e4, -1e4, -1e4, -1e4, -1e4],
            [0.0, -200.0, -300.0, -400.0, -500.0],  # the tail underflows
            [most, -most, most, 0.0, -most],
            [1.0, 1.0, 1.0, 1.0 + 1e-6, 1.0],  # less than half precision
            [0.0, 0.0, 0.0, 1e-30, 0.0],
            [0.0, 5.0, 5.0, 5.0, 0.0],
        ],
        "float32",
    )
    decoded = round_trip(LogitCodec(keep, 5, temperature), logits)
    assert np.isfinite(decoded).all()
    np.testing.assert_array_equal(decoded.argmax(axis=1), logits.argmax(axis=1))
    assert np.isfinite(tf.nn.log_softmax(decoded / temperature)).all()


def test_flat_logits_of_many_classes_keep_their_argmax():
    rng = np.random.default_rng(4)
    logits = rng.normal(0, 1e-4, (256, 1000)).astype("float32")
    for keep in (1, 16):
        decoded = round_trip(LogitCodec(keep, 1000), logits)
        np.testing.assert_array_equal(decoded.argmax(axis=1), logits.argmax(axis=1))


@pytest.mark.parametrize("keep", [*KEEP_LOGITS, 2])
@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_logits_that_are_no_finite_numbers_are_refused(keep, bad):
    logits = np.zeros((3, 4), "float32")
    logits[1, 2] = bad
    with pytest.raises(ValueError, match=r"must be finite .* views=\[1\], number.*=1"):
        LogitCodec(keep, 4).encode(logits)


@pytest.mark.parametrize("shape", [(2, 3), (4,), (1, 2, 4)])
def test_logits_of_another_shape_are_refused(shape):
    with pytest.raises(ValueError, match=r"must have the shape \(B, 4\)\. Received"):
        LogitCodec("all", 4).encode(np.zeros(shape, "float32"))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("most", 10), "`keep` must be 'all', 'hard' or a number .* keep='most'"),
        ((["all"], 10), "`keep` must be"),
        ((0, 10), "`keep` must be .* Received: keep=0, num_classes=10"),
        ((10, 10), "`keep` must be .* less than the number of classes"),
        ((True, 10), "`keep` must be"),
        ((2.0, 10), "`keep` must be"),
        (("all", 0), "`num_classes` must be a whole number of at least 1"),
        (("all", 2.0), "`num_classes` must be"),
        ((2, 10, 0.0), r"`temperature` must be a number in \[0.001, 1000\]"),
        ((2, 10, 1001), "`temperature` must be"),
        ((2, 10, float("nan")), "`temperature` must be"),
        ((2, 10, "1"), "`temperature` must be"),
        (("all", 10, 3.0), "`temperature` has a meaning for a number of logits only"),
        (("hard", 10, 3.0), "`temperature` has a meaning .* keep='hard'"),
    ],
)
def test_what_is_out_of_range_is_refused(arguments, message):
    with pytest.raises(ValueError, match=message):
        LogitCodec(*arguments)
