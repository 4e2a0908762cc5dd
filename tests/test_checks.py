import pytest

from keras_deit._checks import check, check_choice, check_share


def test_a_rule_that_holds_says_nothing():
    check(True, "`a` must be 1.", a=2)
    check_choice("name", "deit_tiny", ["deit_tiny", "deit_base"])


@pytest.mark.parametrize("value", [0, 0.5, 1])
def test_both_ends_of_a_share_are_shares(value):
    check_share("rate", value)


def test_refuses_with_the_rule_first_and_all_that_was_received():
    with pytest.raises(ValueError) as refusal:
        check(False, "`a` must divide `b`.", a=3, b="four")
    assert str(refusal.value) == "`a` must divide `b`. Received: a=3, b='four'."


def test_refuses_an_unknown_choice_and_names_the_nearest():
    with pytest.raises(ValueError) as refusal:
        check_choice("name", "deit_tinny", ["deit_tiny", "cait"])
    assert str(refusal.value) == (
        "`name` must be one of ['cait', 'deit_tiny']. Did you mean 'deit_tiny'? "
        "Received: name='deit_tinny'."
    )


@pytest.mark.parametrize("value", ["zzz", 3, None])
def test_guesses_nothing_where_nothing_is_near(value):
    with pytest.raises(ValueError) as refusal:
        check_choice("name", value, ["cait", "deit"])
    assert str(refusal.value) == (
        f"`name` must be one of ['cait', 'deit']. Received: name={value!r}."
    )


@pytest.mark.parametrize("value", [-0.1, 1.1, float("nan")])
def test_refuses_what_is_no_share(value):
    with pytest.raises(
        ValueError, match=rf"`rate` must be in \[0, 1\]. .* rate={value}"
    ):
        check_share("rate", value)
