"""The flags of `benchmark`, and the numbers of a run that follow from them."""

from collections.abc import Callable

from absl import flags

THOROUGH = {
    "input": {"rounds": 7, "seconds": 1.0, "batch_size": 64},
    "distillation": {
        "rounds": 25,
        "seconds": 1.0,
        "batch_size": 8,
        "student": "deit_tiny_distilled_patch16_224",
        "teacher": "regnety_160",
    },
    "inference": {
        "rounds": 5,
        "seconds": 1.0,
        "variants": ["deit_small_distilled_patch16_224"],
        "engines": None,  # all
        "batch_sizes": [1, 32],
        "keep_rates": [1.0, 0.7, 0.5],
    },
}
QUICK = {
    "input": {"rounds": 3, "seconds": 0.2, "batch_size": 32},
    "distillation": {
        "rounds": 3,
        "seconds": 0.2,
        "batch_size": 8,
        "student": "deit_micro_distilled_patch4_32",
        "teacher": "regnety_micro_32",
    },
    "inference": {
        "rounds": 3,
        "seconds": 0.2,
        "variants": ["deit_micro_distilled_patch4_32"],
        "engines": ["keras_function", "saved_model_float32", "tflite_dynamic_int8"],
        "batch_sizes": [1, 8],
        "keep_rates": [1.0, 0.5],
    },
}
WHATS = tuple(THOROUGH)
MEANT_FOR = {  # flags that have no meaning for the others
    "batch_size": ("input", "distillation"),
    "dataset": ("input",),
    "peer_python": ("input", "inference"),
    "student": ("distillation",),
    "teacher": ("distillation",),
    "variants": ("inference",),
    "engines": ("inference",),
    "batch_sizes": ("inference",),
    "keep_rates": ("inference",),
    "cores": ("inference",),
}


def define_flags(values: flags.FlagValues) -> None:
    """Defines the flags of this program."""
    flags.DEFINE_enum("what", "input", WHATS, "What to measure.", flag_values=values)
    flags.DEFINE_string(
        "dataset",
        None,
        "Folder of class folders with JPEGs, of which up to 512 are taken. Without it, "
        "64 are made: random fields with the spectrum of photographs, 500 x 375.",
        flag_values=values,
    )
    flags.DEFINE_string(
        "output",
        None,
        "The JSON file to write; the picture lies beside it, with the ending .png. "
        "Without it, benchmarks/WHAT.json.",
        flag_values=values,
    )
    flags.DEFINE_bool(
        "quick",
        False,
        "In less than two minutes, to see that it works: short rounds, small batches "
        "or small models, few engines.",
        flag_values=values,
    )
    flags.DEFINE_integer(
        "rounds",
        None,
        "How many rounds; without it 7 of input, 25 of distillation, 5 of inference, "
        "or 3 with --quick.",
        lower_bound=1,
        flag_values=values,
    )
    flags.DEFINE_integer(
        "batch_size",
        None,
        "Images in a batch; without it 64 of input, or 32 with --quick, and 8 of "
        "distillation.",
        lower_bound=1,
        flag_values=values,
    )
    flags.DEFINE_string(
        "baseline",
        None,
        "The contestant that the others are compared with; without it timm, 'no "
        "teacher', or timm_float32 and, where that is not measured, keras_function. If "
        "it is left out, there are no ratios.",
        flag_values=values,
    )
    flags.DEFINE_string(
        "peer_python",
        None,
        "The Python that has the packages of the others (pip install "
        "'keras-deit[bench]'); without it, the one that runs this.",
        flag_values=values,
    )
    flags.DEFINE_string(
        "student",
        None,
        "The variant that is trained; without it deit_tiny_distilled_patch16_224, or "
        "deit_micro_distilled_patch4_32 with --quick.",
        flag_values=values,
    )
    flags.DEFINE_string(
        "teacher",
        None,
        "The variant that teaches; without it regnety_160, or regnety_micro_32 with "
        "--quick.",
        flag_values=values,
    )
    _define_inference(values)


def _define_inference(values: flags.FlagValues) -> None:
    """Defines the flags that --what=inference alone has."""
    for name, meaning in (
        (
            "variants",
            "The variants that answer; without it deit_small_distilled_patch16_224, or "
            "deit_micro_distilled_patch4_32 with --quick.",
        ),
        (
            "engines",
            "The engines, in the order of the table; without it all, or three "
            "with --quick.",
        ),
        (
            "batch_sizes",
            "Images in a batch; without it 1,32, or 1,8 with --quick. TFLite takes 1 "
            "only.",
        ),
        (
            "keep_rates",
            "Shares of the patch tokens that stay at each reorganization; without it "
            "1,0.7,0.5, or 1,0.5 with --quick. The engines of others have 1 only.",
        ),
    ):
        flags.DEFINE_list(name, None, meaning, flag_values=values)
    flags.DEFINE_enum(
        "cores",
        None,
        ["one", "all"],
        "Whether engines work on one core with one thread, measured in the seconds "
        "that it worked for them, or on all cores by the clock on the wall; without it "
        "one.",
        flag_values=values,
    )


def settings_of(values: flags.FlagValues) -> dict:
    """Reads the numbers of a run.

    Raises:
        ValueError: If a flag is refused, or has no meaning for what is measured.
    """
    from keras_deit._checks import check

    for name, whats in MEANT_FOR.items():
        rule = f"`{name}` has a meaning with --what={' or --what='.join(whats)} only."
        meant = values[name].value is None or values.what in whats
        check(meant, rule, **{name: values[name].value}, what=values.what)
    settings = dict((QUICK if values.quick else THOROUGH)[values.what])
    for name in settings.keys() - {"seconds"}:
        if values[name].value is not None:
            settings[name] = values[name].value
    if values.batch_sizes is not None:
        settings["batch_sizes"] = _numbers("batch_sizes", values.batch_sizes, int)
    if values.keep_rates is not None:
        settings["keep_rates"] = _numbers("keep_rates", values.keep_rates, float, 1.0)
    return settings


def _numbers(
    name: str, texts: list[str], kind: Callable, most: float = float("inf")
) -> list:
    """Reads the numbers of a flag, which are above 0 and there once each."""
    from keras_deit._checks import check

    try:
        numbers = [kind(text) for text in texts]
    except ValueError:
        numbers = []
    check(
        len(numbers) > 0
        and all(0 < number <= most for number in numbers)
        and len(set(numbers)) == len(numbers),
        f"`{name}` must be different {'shares' if most == 1 else 'whole numbers'} "
        "above 0.",
        **{name: ",".join(texts)},
    )
    return numbers
