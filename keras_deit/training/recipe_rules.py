"""What each field of a recipe must be, one by one."""

import math
from collections.abc import Callable

from keras_deit.data.augmentation import ENGINES
from keras_deit.data.rand_augment import parse_policy
from keras_deit.distillation.losses import REDUCTIONS
from keras_deit.distillation.objective import KINDS
from keras_deit.distillation.teacher_kinds import MEANS
from keras_deit.models.applications import APPLICATIONS, PREFIX
from keras_deit.models.variants import VARIANTS

OPTIMIZERS = ("adamw", "sgd")
PRECISIONS = ("float32", "mixed_bfloat16", "mixed_float16")
SCHEDULES = ("cosine", "epochs", "late_epochs", "constant")


def _is_variant(value) -> bool:
    return value in VARIANTS or value in [PREFIX + name for name in APPLICATIONS]


def _is_whole(value) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= 0


def _is_count(value) -> bool:
    return _is_whole(value) and value >= 1


def _is_count_or_none(value) -> bool:
    return value is None or _is_count(value)


def _is_share(value) -> bool:
    return 0 <= value <= 1


def _is_rate(value) -> bool:
    return 0 <= value < math.inf


def _is_positive(value) -> bool:
    return 0 < value < math.inf


def _is_text_or_none(value) -> bool:
    return value is None or (isinstance(value, str) and value != "")


def _are_texts(value) -> bool:
    return (
        isinstance(value, tuple)
        and len(value) > 0
        and all(isinstance(v, str) and v != "" for v in value)
    )


def _is_number(value) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _is_range(value) -> bool:
    return (
        isinstance(value, tuple)
        and len(value) == 2
        and all(map(_is_number, value))
        and 0 < value[0] <= value[1] < math.inf
    )


def _is_policy_or_none(value) -> bool:
    try:
        return value is None or bool(parse_policy(value))
    except (AttributeError, ValueError):  # no text, or no policy
        return False


def _is_overrides(value) -> bool:
    return isinstance(value, dict) and not {"image_size", "num_classes"} & set(value)


def _is_class_table(value) -> bool:
    return value is None or (
        isinstance(value, tuple)
        and len(value) > 0
        and all(isinstance(v, str) or _is_whole(v) for v in value)
    )


def _is_seed(value) -> bool:
    return _is_whole(value) and value < 2**32


# The rule in words, and whether a value holds it.
RULES: dict[str, tuple[str, Callable]] = {
    "variant": (
        f"one of {sorted(VARIANTS)}, or '{PREFIX}NAME' of keras.applications",
        _is_variant,
    ),
    "dataset": ("a name or a folder", lambda v: isinstance(v, str) and v != ""),
    "image_size": ("a number of pixels or null", _is_count_or_none),
    "model_overrides": ("an object without image_size, num_classes", _is_overrides),
    "weights": ("'pretrained', a file or null", _is_text_or_none),
    "train_mode": ("true or false", lambda v: isinstance(v, bool)),
    "head_epochs": ("a whole number of at least 0", _is_whole),
    "crop_area": (
        "(smallest, largest), both in (0, 1]",
        lambda v: _is_range(v) and v[1] <= 1,
    ),
    "crop_aspect_ratio": ("(smallest, largest), both positive", _is_range),
    "flip": ("true or false", lambda v: isinstance(v, bool)),
    "rand_augment": (
        "null, or a policy such as 'rand-m9-mstd0.5-inc1' (see `parse_policy`)",
        _is_policy_or_none,
    ),
    "color_jitter": ("at least 0 and finite", _is_rate),
    "erasing": ("in [0, 1]", _is_share),
    "augment": (f"one of {list(ENGINES)}", lambda v: v in ENGINES),
    "mixup": ("at least 0 and finite", _is_rate),
    "cutmix": ("at least 0 and finite", _is_rate),
    "mix_probability": ("in [0, 1]", _is_share),
    "mix_switch_probability": ("in [0, 1]", _is_share),
    "label_smoothing": ("in [0, 1]", _is_share),
    "repeats": ("a whole number of at least 1", _is_count),
    "epochs": ("a whole number of at least 1", _is_count),
    "batch_size": ("a whole number of at least 1", _is_count),
    "accumulate_steps": ("a whole number of at least 1", _is_count),
    "gradient_checkpointing": ("true or false", lambda v: isinstance(v, bool)),
    "precision": (f"one of {list(PRECISIONS)}", lambda v: v in PRECISIONS),
    "jit_compile": ("true or false", lambda v: isinstance(v, bool)),
    "optimizer": (f"one of {list(OPTIMIZERS)}", lambda v: v in OPTIMIZERS),
    "momentum": ("in [0, 1)", lambda v: 0 <= v < 1),
    "learning_rate": ("positive and finite", _is_positive),
    "learning_rate_batch": ("at least 1, or null", _is_count_or_none),
    "schedule": (f"one of {list(SCHEDULES)}", lambda v: v in SCHEDULES),
    "warmup_epochs": ("at least 0 and finite", _is_rate),
    "warmup_learning_rate": ("at least 0 and finite", _is_rate),
    "min_learning_rate": ("at least 0 and finite", _is_rate),
    "cooldown_epochs": ("a whole number of at least 0", _is_whole),
    "weight_decay": ("at least 0 and finite", _is_rate),
    "layer_decay": ("in (0, 1]", lambda v: 0 < v <= 1),
    "clip_norm": ("positive, or null", lambda v: v is None or _is_positive(v)),
    "ema_decay": ("in [0, 1), or null", lambda v: v is None or 0 <= v < 1),
    "early_stop_epochs": ("a whole number of at least 1, or null", _is_count_or_none),
    "keep_rate_start_epoch": ("a whole number of at least 0", _is_whole),
    "keep_rate_ramp_epochs": ("a whole number of at least 0", _is_whole),
    "keep_rate_stages": ("a whole number of at least 1", _is_count),
    "kind": (f"one of {list(KINDS)}", lambda v: v in KINDS),
    "alpha": ("in [0, 1]", _is_share),
    "temperature": ("positive and finite", _is_positive),
    "reduction": (f"one of {list(REDUCTIONS)}", lambda v: v in REDUCTIONS),
    "teacher": (
        "a path, the name of a variant, a list of these, or null",
        lambda v: _is_text_or_none(v) or _are_texts(v),
    ),
    "teacher_weights": ("'pretrained', 'random', a file or null", _is_text_or_none),
    "teacher_image_size": ("a number of pixels or null", _is_count_or_none),
    "teacher_precision": (
        f"one of {list(PRECISIONS)}, or null",
        lambda v: v is None or v in PRECISIONS,
    ),
    "teacher_from_logits": ("true or false", lambda v: isinstance(v, bool)),
    "teacher_signature": ("a name or null", _is_text_or_none),
    "teacher_shares": (
        "a list of positive numbers, or null",
        lambda v: (
            v is None or (isinstance(v, tuple) and v and all(map(_is_positive, v)))
        ),
    ),
    "teacher_mean": (f"one of {list(MEANS)}", lambda v: v in MEANS),
    "teacher_classes": ("a list of indices or names, or null", _is_class_table),
    "teacher_cache": ("a folder or null", _is_text_or_none),
    "train_teacher": (
        "true, false or 'head'",
        lambda v: isinstance(v, bool) or v == "head",
    ),
    "teacher_learning_rate": (
        "positive and finite, or null",
        lambda v: v is None or _is_positive(v),
    ),
    "seed": ("a whole number from 0 to 2**32 - 1", _is_seed),
}


def contradictions(recipe) -> list[str]:
    """Names what does not fit together in a recipe whose fields hold their rules."""
    faults = [*_phases_too_long(recipe), *_rates_too_high(recipe), *_teachers(recipe)]
    faults += _computing(recipe)
    for name, neutral in (("temperature", 1.0), ("reduction", "batchmean")):
        if recipe.kind != "soft" and getattr(recipe, name) != neutral:
            faults.append(
                f"`{name}` has a meaning for `kind` 'soft' only. Received: "
                f"{name}={getattr(recipe, name)!r}, kind={recipe.kind!r}."
            )
    try:
        _ = recipe.augmentation
    except ValueError as error:
        faults.append(str(error))
    return faults


def _computing(recipe) -> list[str]:
    """Ways of computing a step that there are not, for this model."""
    overrides = recipe.model_overrides
    config = getattr(VARIANTS.get(recipe.variant), "config", None)
    checkpoints = recipe.gradient_checkpointing
    rules = (
        (
            "`accumulate_steps` must divide `batch_size`",
            recipe.batch_size % recipe.accumulate_steps == 0,
            ("accumulate_steps", "batch_size"),
        ),
        (
            "`accumulate_steps` above 1 is not for a teacher that is trained",
            recipe.accumulate_steps == 1 or recipe.train_teacher is False,
            ("accumulate_steps", "train_teacher"),
        ),
        (
            "`precision` and a 'dtype' in `model_overrides` contradict each other",
            recipe.precision == "float32" or "dtype" not in overrides,
            ("precision", "model_overrides"),
        ),
        (
            "`gradient_checkpointing` needs an encoder: ViT, DeiT, EViT or T2T-ViT",
            not checkpoints or hasattr(config, "encoder"),
            ("gradient_checkpointing", "variant"),
        ),
        (
            "`gradient_checkpointing` needs `train_mode`",
            not checkpoints or recipe.train_mode,
            ("gradient_checkpointing", "train_mode"),
        ),
        (
            "`gradient_checkpointing` needs a `drop_rate` of 0",
            not checkpoints or not overrides.get("drop_rate"),
            ("gradient_checkpointing", "model_overrides"),
        ),
    )
    return [
        f"{rule}. Received: "
        f"{', '.join(f'{name}={getattr(recipe, name)!r}' for name in names)}."
        for rule, holds, names in rules
        if not holds
    ]


def _phases_too_long(recipe) -> list[str]:
    phases = (
        ("warmup_epochs",),
        ("head_epochs",),
        ("keep_rate_start_epoch", "keep_rate_ramp_epochs"),
        *([("warmup_epochs", "cooldown_epochs")] if recipe.cooldown_epochs else []),
    )
    return [
        f"{' + '.join(f'`{name}`' for name in names)} must be less than `epochs`. "
        f"Received: {', '.join(f'{n}={getattr(recipe, n)}' for n in names)}, "
        f"epochs={recipe.epochs}."
        for names in phases
        if sum(getattr(recipe, name) for name in names) >= recipe.epochs
    ]


def _teachers(recipe) -> list[str]:
    """Options of a teacher that there is not."""
    teacher, is_trained = recipe.teacher, recipe.train_teacher is not False
    is_variant = isinstance(teacher, str) and teacher in VARIANTS
    meanings = (
        ("teacher_weights", None, is_variant, "a teacher that is a variant"),
        ("teacher_image_size", None, isinstance(teacher, str), "a single teacher"),
        ("teacher_precision", None, isinstance(teacher, str), "a single teacher"),
        ("teacher_from_logits", True, isinstance(teacher, str), "a single teacher"),
        ("teacher_signature", None, isinstance(teacher, str), "a single teacher"),
        ("teacher_shares", None, isinstance(teacher, tuple), "several teachers"),
        ("teacher_mean", "logits", isinstance(teacher, tuple), "several teachers"),
        ("train_teacher", False, isinstance(teacher, str), "a single teacher"),
        ("train_teacher", False, recipe.teacher_cache is None, "no `teacher_cache`"),
        ("teacher_learning_rate", None, is_trained, "`train_teacher`"),
    )
    faults = [
        f"`{name}` has a meaning with {what} only. Received: {name}="
        f"{getattr(recipe, name)!r}, teacher={teacher!r}."
        for name, neutral, holds, what in meanings
        if getattr(recipe, name) != neutral and not holds
    ]
    if recipe.teacher_weights == "random" and not is_trained:
        faults.append(
            "A teacher of random weights has to be trained. Received: teacher_weights="
            "'random', train_teacher=False."
        )
    return faults


def _rates_too_high(recipe) -> list[str]:
    return [
        f"`{name}` must be at most the peak learning rate. Received: "
        f"{name}={getattr(recipe, name)}, peak={recipe.peak_learning_rate}."
        for name in ("warmup_learning_rate", "min_learning_rate")
        if getattr(recipe, name) > recipe.peak_learning_rate
    ]
