import pytest

from keras_deit.export.dial import dial, keep_rate_of


def test_each_rate_has_a_signature_and_all_share_the_weights(small_model):
    models = dial(small_model, (1.0, 0.7, 0.57))
    assert list(models) == ["serving_default", "keep_100", "keep_70", "keep_57"]
    assert models["serving_default"] is small_model
    for model in models.values():
        assert [id(x) for x in model.weights] == [id(x) for x in small_model.weights]


def test_a_rate_that_keeps_as_many_tokens_is_the_same_model(small_model):
    models = dial(small_model, (1.0, 0.5))  # its own rate is 1
    assert models["keep_100"] is small_model
    assert models["keep_50"] is not small_model


def test_without_rates_there_is_one_signature(small_model):
    assert dial(small_model) == {"serving_default": small_model}


def test_a_name_tells_its_rate():
    assert keep_rate_of("keep_57") == 0.57
    assert keep_rate_of("keep_100") == 1
    assert keep_rate_of("serving_default") is None


@pytest.mark.parametrize(
    "rates",
    [(0.705,), (0.0,), (1.5,), (0.7, 0.7), (-0.5,), (float("nan"),), (float("inf"),)],
)
def test_what_is_no_whole_percent_or_is_there_twice_is_refused(small_model, rates):
    message = r"`keep_rates` must be different whole percents in \(0, 1\]\. Received"
    with pytest.raises(ValueError, match=message):
        dial(small_model, rates)
