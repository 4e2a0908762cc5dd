"""One set of weights, several keep rates: a signature for each."""

from collections.abc import Sequence

import keras

from keras_deit._checks import check
from keras_deit.models.complexity import count_macs
from keras_deit.models.reorganization import with_keep_rate

DEFAULT = "serving_default"


def dial(
    model: keras.Model, keep_rates: Sequence[float] = ()
) -> dict[str, keras.Model]:
    """Builds the model of each signature; all share the weights of `model`.

    Args:
        model: A model with one output.
        keep_rates: Shares of the patch tokens that stay at each reorganization, each a
            whole percent in (0, 1]; empty for no dial.

    Returns:
        By name of the signature: `serving_default`, the model as it is, then
        `keep_100`, `keep_70`, ... in the order of the rates; the same object where a
        rate keeps as many tokens as another.

    Raises:
        ValueError: If a rate is no whole percent in (0, 1] or is there twice, or the
            model has no blocks that reorganize tokens.
    """
    percents = check_keep_rates(keep_rates)
    if not percents:
        return {DEFAULT: model}
    by_cost, models = {count_macs(model): model}, {DEFAULT: model}
    for percent in percents:
        dialed = with_keep_rate(model, percent / 100)
        # As many products, as many tokens: the same model needs no second graph.
        models[f"keep_{percent}"] = by_cost.setdefault(count_macs(dialed), dialed)
    return models


def check_keep_rates(keep_rates: Sequence[float]) -> list[int]:
    """Reads keep rates as percents.

    Raises:
        ValueError: If one is no whole percent in (0, 1] or is there twice.
    """
    rates = [rate for rate in keep_rates if 0 < rate <= 1]
    percents = [round(100 * rate) for rate in rates]
    exact = all(
        abs(100 * rate - percent) < 1e-6
        for rate, percent in zip(rates, percents, strict=True)
    )
    check(
        exact and len(set(percents)) == len(keep_rates),
        "`keep_rates` must be different whole percents in (0, 1].",
        keep_rates=tuple(keep_rates),
    )
    return percents


def keep_rate_of(signature: str) -> float | None:
    """Reads the keep rate off the name of a signature; None for the model's own.

    Example:
    >>> keep_rate_of("keep_70"), keep_rate_of("serving_default")
    (0.7, None)
    """
    percent = signature.removeprefix("keep_")
    return None if percent == signature else int(percent) / 100
