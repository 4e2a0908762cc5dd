"""The numbers of a run of `benchmark`, as its flags say them."""

from collections.abc import Callable

from absl import flags

TRAIN = {  # of a training step, unless it is chosen otherwise
    "precisions": ["float32"],
    "replicas": [1],
    "accumulate_steps": [1],
    "gradient_checkpointing": False,
    "compiled": False,
    "cores": "all",
}
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
    "train": {
        "rounds": 5,
        "seconds": 1.0,
        "batch_size": 8,
        "student": "deit_tiny_distilled_patch16_224",
        "teacher": "regnety_160",
        **TRAIN,
        "precisions": ["float32", "mixed_bfloat16"],
    },
    "startup": {"rounds": 7, "seconds": 0.0},
    "softsplit": {"rounds": 7, "seconds": 0.3, "batch_size": 8},
    "all": {"rounds": None, "seconds": None},  # each part has its own
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
    "train": {
        "rounds": 3,
        "seconds": 0.2,
        "batch_size": 8,
        "student": "deit_micro_distilled_patch4_32",
        "teacher": "regnety_micro_32",
        **TRAIN,
    },
    "startup": {"rounds": 1, "seconds": 0.0},
    "softsplit": {"rounds": 3, "seconds": 0.05, "batch_size": 8},
    "all": {"rounds": None, "seconds": None},
}
WHATS = tuple(THOROUGH)
MEANT_FOR = {  # flags that have no meaning for the others
    "baseline": ("input", "distillation", "inference", "train", "startup", "softsplit"),
    "batch_size": ("input", "distillation", "train", "softsplit"),
    "dataset": ("input", "train", "all"),
    "peers": ("input", "inference", "train", "startup", "softsplit", "all"),
    "peer_python": ("input", "inference", "train", "startup", "softsplit", "all"),
    "student": ("distillation", "train"),
    "teacher": ("distillation", "train"),
    "variants": ("inference",),
    "engines": ("inference",),
    "batch_sizes": ("inference",),
    "keep_rates": ("inference",),
    "cores": ("inference", "train", "startup", "softsplit", "all"),
    "precisions": ("train",),
    "replicas": ("train",),
    "accumulate_steps": ("train",),
    "gradient_checkpointing": ("train",),
    "compiled": ("train",),
}
NUMBERS = {  # flags that are lists of them: of what kind, and the largest
    "batch_sizes": (int, float("inf")),
    "keep_rates": (float, 1.0),
    "replicas": (int, float("inf")),
    "accumulate_steps": (int, float("inf")),
}


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
    for name, (kind, most) in NUMBERS.items():
        if values[name].value is not None:
            settings[name] = _numbers(name, values[name].value, kind, most)
    return settings


def _numbers(name: str, texts: list[str], kind: Callable, most: float) -> list:
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
