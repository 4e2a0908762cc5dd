"""The one table of goals of speed, and the parts that measure what it needs."""

from dataclasses import dataclass

OLD_PEER = "it needs Python 3.10 or older, and this library a newer one"  # tfimm
DIALED = (  # engines of ours that take batches
    "keras_compiled_float32",
    "keras_compiled_bfloat16",
    "saved_model_float32",
    "saved_model_bfloat16",
    "openvino_float32",
    "openvino_bfloat16",
    "onnx_float32",
    "onnx_dynamic_int8",
)
DIALED_ONE = ("tflite_float32", "tflite_dynamic_int8")  # and that take one image
KEEP_RATES = "1,0.7,0.5"


@dataclass(frozen=True)
class Scale:
    """How large the models and batches are.

    Attributes:
        model: The variant that answers.
        t2t: The T2T-ViT whose speed is compared with that of `plain`.
        plain: See `t2t`.
        trained: The variant that is trained.
        batch_size: Images in a batch of inference.
        train_batch_size: Images in a training step.
        is_quick: Whether --quick chooses what is not said here.
    """

    model: str
    t2t: str
    plain: str
    trained: str
    batch_size: int
    train_batch_size: int
    is_quick: bool


THOROUGH = Scale(
    "deit_small_distilled_patch16_224",
    "t2t_vit_14",
    "deit_small_patch16_224",
    "deit_tiny_distilled_patch16_224",
    batch_size=32,
    train_batch_size=16,
    is_quick=False,
)
QUICK = Scale(
    "deit_micro_distilled_patch4_32",
    "t2t_vit_micro_32",
    "deit_micro_patch4_32",
    "deit_micro_distilled_patch4_32",
    batch_size=8,
    train_batch_size=8,
    is_quick=True,
)


@dataclass(frozen=True)
class Part:
    """A measurement that the table needs.

    Attributes:
        what: Of what, as --what says it.
        flags: More flags of it.
        only: The contestants that take part; None for all.
        tasks: What of theirs is measured; None for all.
    """

    what: str
    flags: tuple[str, ...] = ()
    only: tuple[str, ...] | None = None
    tasks: tuple[str, ...] | None = None


@dataclass(frozen=True)
class Goal:
    """A row of the table: our figure over that of a peer, and what it should be.

    Attributes:
        measure: What the table calls it.
        what: The kind of measurement that it is in.
        ours: What marks our row there, by name of the field.
        peer: What marks the peer's row, in the same file.
        least: The least that our rate over the peer's should be.
        most: The most that our time, or memory, over the peer's should be; a goal has
            one of the two.
        figure: "rate", "time" or "memory".
        never: Why it can be measured nowhere, if it cannot.
    """

    measure: str
    what: str
    ours: dict
    peer: dict
    least: float | None = None
    most: float | None = None
    figure: str = "rate"
    never: str | None = None

    def is_met(self, ratio: float) -> bool:
        """Whether a ratio is good enough."""
        return ratio >= self.least if self.most is None else ratio <= self.most


def parts_of(scale: Scale) -> dict[str, Part]:
    """The parts, by the names of their files.

    Engines are spread over several contests, since each task holds a model in memory
    until its contest is over. A quick run has one, of fewer engines, and neither a
    T2T-ViT nor training steps, which timm has of larger models only; their rows say so.
    """
    batch = str(scale.batch_size)
    compiled = ("keras_compiled_float32", "keras_compiled_bfloat16")
    if scale.is_quick:
        few = ("timm_float32", "timm_bfloat16", "keras_hub", *compiled)
        inference = _inference(scale.model, few, f"1,{batch}", "1,0.5")
        return {"inference": inference, **_other_parts(scale)}
    float32 = (
        *("timm_float32", "timm_compile_float32", "keras_hub"),
        *("keras_compiled_float32", "saved_model_float32"),
    )
    bfloat16 = (
        *("timm_float32", "timm_compile_bfloat16"),
        *("keras_compiled_bfloat16", "saved_model_bfloat16"),
    )
    others = (
        *("timm_float32", "openvino_timm_bfloat16"),
        *("openvino_bfloat16", "openvino_float32"),
        *("onnx_float32", "onnx_dynamic_int8"),
    )
    one = (
        *("timm_float32", "timm_bfloat16", "keras_compiled_float32"),
        *("keras_compiled_bfloat16", *DIALED_ONE, "onnx_dynamic_int8"),
    )
    return {
        "float32": _inference(scale.model, float32, batch),
        "bfloat16": _inference(scale.model, bfloat16, batch),
        "engines": _inference(scale.model, others, batch),
        "one_image": _inference(scale.model, one, "1"),
        "t2t": _inference(f"{scale.plain},{scale.t2t}", compiled, batch, "1"),
        "train": Part(
            "train",
            (
                *(f"--student={scale.trained}", "--teacher=none"),
                f"--batch_size={scale.train_batch_size}",
                "--precisions=float32,mixed_bfloat16",
            ),
            tasks=("no teacher",),
        ),
        **_other_parts(scale),
    }


def _other_parts(scale: Scale) -> dict[str, Part]:
    """The parts that a quick run has as well, beside inference."""
    cached = "--teacher=regnety_micro_32"  # a cache's logits are random anyway
    return {
        "distillation": Part(
            "distillation",
            (f"--student={scale.trained}", cached),
            ("no teacher", "cached, all"),
        ),
        "input": Part(
            "input",
            only=("keras_deit", "timm"),
            tasks=("recipe",) if scale.is_quick else None,
        ),
        "startup": Part(
            "startup", only=("keras_deit", "keras_hub") if scale.is_quick else None
        ),
    }


def _inference(
    variants: str, engines: tuple, batch_sizes: str, keep_rates: str = KEEP_RATES
) -> Part:
    """A part of one engine after another."""
    return Part(
        "inference",
        (
            f"--variants={variants}",
            f"--engines={','.join(engines)}",
            f"--batch_sizes={batch_sizes}",
            f"--keep_rates={keep_rates}",
        ),
    )


def goals_of(scale: Scale) -> list[Goal]:
    """The rows of the table."""
    return [
        *_whole_models(scale),
        *_dial(scale),
        *_other_models(scale),
        *_steps(),
    ]


def _whole_models(scale: Scale) -> list[Goal]:
    """One model with all its tokens, in process and in other engines."""

    def row(measure, ours, peer, least, size=scale.batch_size, keep_rate=1.0, **more):
        ours, peer = (
            {"contestant": name, "keep_rate": rate, "batch_size": size}
            for name, rate in ((ours, keep_rate), (peer, 1.0))
        )
        return Goal(measure, "inference", ours, peer, least, **more)

    f32, bf16 = "keras_compiled_float32", "keras_compiled_bfloat16"
    ours, theirs = "openvino_bfloat16", "openvino_timm_bfloat16"
    return [
        row("float32, batch, over timm eager", f32, "timm_float32", 1.15),
        row("float32, batch, over timm compile", f32, "timm_compile_float32", 1.0),
        row("float32, batch, over KerasHub", f32, "keras_hub", 1.0),
        row("float32, batch, over tfimm", f32, "tfimm", 1.0, never=OLD_PEER),
        row("bfloat16, batch, over timm eager float32", bf16, "timm_float32", 3.8),
        row("float32, one image, over timm eager", f32, "timm_float32", 1.0, 1),
        row("bfloat16, one image, over timm eager", bf16, "timm_bfloat16", 1.2, 1),
        row("OpenVINO bfloat16, over timm's there", ours, theirs, 1.0),
        row("... with EViT 0.7, over timm's there", ours, theirs, 1.4, keep_rate=0.7),
        row(
            "LiteRT int8, one image, over ONNX Runtime int8",
            *("tflite_dynamic_int8", "onnx_dynamic_int8", 2.0, 1),
        ),
    ]


def _dial(scale: Scale) -> list[Goal]:
    """EViT's dial, in every engine."""
    sizes = dict.fromkeys(DIALED, scale.batch_size)
    sizes.update(dict.fromkeys(DIALED_ONE, 1))
    return [
        Goal(
            f"EViT {rate:g} over 1: {engine}",
            "inference",
            *(
                {"contestant": engine, "keep_rate": own, "batch_size": size}
                for own in (rate, 1.0)
            ),
            least=least,
        )
        for rate, least in ((0.7, 1.45), (0.5, 1.8))
        for engine, size in sizes.items()
    ]


def _other_models(scale: Scale) -> list[Goal]:
    """T2T-ViT over a plain transformer of the same arithmetic."""
    return [
        Goal(
            f"T2T-ViT over DeiT, {precision}",
            "inference",
            *(
                {"contestant": f"keras_compiled_{precision}", "variant": variant}
                for variant in (scale.t2t, scale.plain)
            ),
            least=0.9,
        )
        for precision in ("float32", "bfloat16")
    ]


def _steps() -> list[Goal]:
    """Training, its input, and the start."""

    def row(measure, what, ours, peer, task, least=None, most=None, figure="rate"):
        sides = ({"contestant": name, "task": task} for name in (ours, peer))
        return Goal(measure, what, *sides, least, most, figure)

    def trained(precision, least):
        names = (f"keras_{precision}", f"timm_{precision}", "no teacher", least)
        return row(f"training step, {precision}, over timm eager", "train", *names)

    started = ("startup", "keras_deit", "keras_hub", "import and build", None)
    return [
        trained("float32", 1.0),
        trained("bfloat16", 0.9),
        row(
            "distillation step, cached teacher over none",
            *("distillation", "cached, all", "no teacher", "step"),
            most=1.05,
            figure="time",
        ),
        row(
            "input of the DeiT recipe, over timm with PIL",
            *("input", "keras_deit", "timm", "recipe", 2.0),
        ),
        row("import and build, over KerasHub", *started, 0.8, "time"),
        row("... peak of memory, over KerasHub", *started, 1.0, "memory"),
    ]
