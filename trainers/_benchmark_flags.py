"""The flags of `benchmark`; `_benchmark_settings.py` makes numbers of them."""

from absl import flags

from trainers._benchmark_settings import WHATS


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
        "In less than two minutes (all: a few), to see that it works: short rounds, "
        "small batches or small models, few contestants.",
        flag_values=values,
    )
    flags.DEFINE_integer(
        "rounds",
        None,
        "How many rounds; without it 7 of input, startup and softsplit, 25 of "
        "distillation, 5 of inference and train, or 3 with --quick (of startup 1). Of "
        "all it counts for every part; without it each has its own.",
        lower_bound=1,
        flag_values=values,
    )
    flags.DEFINE_integer(
        "batch_size",
        None,
        "Images in a batch; without it 64 of input, or 32 with --quick, and 8 of "
        "distillation, train and softsplit.",
        lower_bound=1,
        flag_values=values,
    )
    flags.DEFINE_string(
        "baseline",
        None,
        "The contestant that the others are compared with; without it timm, 'no "
        "teacher', or timm_float32 and, where that is not measured, keras_function or "
        "keras_float32; of startup keras_hub, of softsplit torch's nn.Unfold, or, "
        "where these are not measured, the first that is. If it is left out, there are "
        "no ratios.",
        flag_values=values,
    )
    flags.DEFINE_string(
        "peer_python",
        None,
        "The Python that has the packages of the others (pip install "
        "'keras-deit[bench,engines]'); without it, the one that runs this.",
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
    flags.DEFINE_list(
        "peers",
        None,
        "Whose packages take part, of timm (with its PyTorch), keras_hub, openvino and "
        "onnxruntime; without it all. One that is not installed is named and left out; "
        "--peers= leaves all out.",
        flag_values=values,
    )
    flags.DEFINE_enum(
        "cores",
        None,
        ["one", "all"],
        "Whether contestants work on one core with one thread, measured in the seconds "
        "that it worked for them, or on all cores by the clock on the wall; without it "
        "all of train, one of everything else.",
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
