"""The flags of `benchmark`, and the numbers of a run that follow from them."""

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
}
WHATS = tuple(THOROUGH)
MEANT_FOR = {  # flags that have no meaning for the others
    "batch_size": ("input", "distillation", "train"),
    "dataset": ("input", "train"),
    "peer_python": ("input", "inference", "train"),
    "student": ("distillation", "train"),
    "teacher": ("distillation", "train"),
    "variants": ("inference",),
    "engines": ("inference",),
    "batch_sizes": ("inference",),
    "keep_rates": ("inference",),
    "cores": ("inference", "train"),
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
        "or small models, few contestants.",
        flag_values=values,
    )
    flags.DEFINE_integer(
        "rounds",
        None,
        "How many rounds; without it 7 of input, 25 of distillation, 5 of inference "
        "and train, or 3 with --quick.",
        lower_bound=1,
        flag_values=values,
    )
    flags.DEFINE_integer(
        "batch_size",
        None,
        "Images in a batch; without it 64 of input, or 32 with --quick, and 8 of "
        "distillation and train.",
        lower_bound=1,
        flag_values=values,
    )
    flags.DEFINE_string(
        "baseline",
        None,
        "The contestant that the others are compared with; without it timm, 'no "
        "teacher', or timm_float32 and, where that is not measured, keras_function or "
        "keras_float32. If it is left out, there are no ratios.",
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
        "--quick. 'none', of train, for none.",
        flag_values=values,
    )
    _define_inference(values)
    _define_train(values)


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
        "Whether contestants work on one core with one thread, measured in the seconds "
        "that it worked for them, or on all cores by the clock on the wall; without it "
        "one of inference and all of train.",
        flag_values=values,
    )


def _define_train(values: flags.FlagValues) -> None:
    """Defines the flags that --what=train alone has."""
    for name, meaning in (
        (
            "precisions",
            "What student and teacher compute in: float32, mixed_bfloat16, "
            "mixed_float16; without it the first two, or the first with --quick.",
        ),
        (
            "replicas",
            "How many devices share a batch, for instance 1,2: GPUs, or logical "
            "devices of one processor. Ours alone; without it 1.",
        ),
        (
            "accumulate_steps",
            "In how many parts a batch is taken, one after the other, for instance "
            "1,4. Ours alone; without it 1.",
        ),
    ):
        flags.DEFINE_list(name, None, meaning, flag_values=values)
    for name, meaning in (
        ("gradient_checkpointing", "Also with gradient checkpointing."),
        (
            "compiled",
            "Also with compiled steps: ours by XLA (in bfloat16 on a GPU only), timm's "
            "by torch.compile.",
        ),
    ):
        flags.DEFINE_bool(name, None, meaning, flag_values=values)


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
