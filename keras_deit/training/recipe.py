"""A recipe: everything that decides what a run computes."""

import json
import math
from dataclasses import asdict, dataclass, field, fields, replace
from difflib import get_close_matches

from keras_deit.distillation.distiller import KINDS
from keras_deit.distillation.losses import REDUCTIONS
from keras_deit.models.variants import VARIANTS


@dataclass(frozen=True)
class Recipe:
    """Everything that decides what a run computes, with DeiT's defaults.

    Attributes:
        variant: The model to train, one of `list_variants()`.
        dataset: "digits", a folder, or a name of TensorFlow Datasets.
        image_size: Side of the views, in pixels; None takes the variant's.
        crop_area: Smallest and largest share of the image in a training crop, (0, 1].
        crop_aspect_ratio: Smallest and largest width over height of a training crop.
        flip: Whether half of the training views are mirrored left to right.
        label_smoothing: Share of a label spread evenly over all classes, in [0, 1].
        model_overrides: Fields of the variant's config to change, for instance
            {"drop_path_rate": 0.1}.
        epochs: How often every image is seen.
        batch_size: B, images in a step, over all devices.
        learning_rate: Peak of the learning rate for `learning_rate_batch` images.
        learning_rate_batch: The rate is scaled by `batch_size / learning_rate_batch`;
            null leaves it as it is.
        warmup_epochs: Epochs of linear warm-up, part of `epochs`.
        warmup_learning_rate: Learning rate of the first step.
        min_learning_rate: Learning rate of the last step.
        weight_decay: Of AdamW, on kernels only.
        kind: "none", "soft" or "hard" distillation.
        alpha: Weight of the distillation loss, in [0, 1].
        temperature: Of soft distillation.
        reduction: Of soft distillation, "batchmean" or "numel".
        teacher: Path of the teacher's `.keras` file; needed unless `kind` is "none".
        seed: Of the weights, the order of the images and every view.
    """

    variant: str
    dataset: str
    image_size: int | None = None
    crop_area: tuple[float, float] = (0.08, 1.0)
    crop_aspect_ratio: tuple[float, float] = (3 / 4, 4 / 3)
    flip: bool = True
    label_smoothing: float = 0.1
    model_overrides: dict = field(default_factory=dict)
    epochs: int = 300
    batch_size: int = 1024
    learning_rate: float = 5e-4
    learning_rate_batch: int | None = 512
    warmup_epochs: float = 5
    warmup_learning_rate: float = 1e-6
    min_learning_rate: float = 1e-5
    weight_decay: float = 0.05
    kind: str = "none"
    alpha: float = 0.5
    temperature: float = 1.0
    reduction: str = "batchmean"
    teacher: str | None = None
    seed: int = 0

    def __post_init__(self):
        """Checks the values, and raises one `ValueError` that lists all faults."""
        faults = [
            f"`{name}` must be {rule}. Received: {name}={getattr(self, name)!r}."
            for name, (rule, holds) in RULES.items()
            if not _holds(holds, getattr(self, name))
        ]
        if not faults:  # each by itself is sound: do they fit together?
            faults = self._contradictions()
        if faults:
            raise ValueError("\n".join(faults))

    def _contradictions(self) -> list[str]:
        faults = []
        if self.warmup_epochs >= self.epochs:
            faults.append(
                "`warmup_epochs` must be less than `epochs`. Received: "
                f"warmup_epochs={self.warmup_epochs}, epochs={self.epochs}."
            )
        for name in ("warmup_learning_rate", "min_learning_rate"):
            if getattr(self, name) > self.peak_learning_rate:
                faults.append(
                    f"`{name}` must be at most the peak learning rate. Received: "
                    f"{name}={getattr(self, name)}, peak={self.peak_learning_rate}."
                )
        return faults

    @property
    def peak_learning_rate(self) -> float:
        """The learning rate after warm-up, scaled to the batch."""
        if self.learning_rate_batch is None:
            return self.learning_rate
        return self.learning_rate * self.batch_size / self.learning_rate_batch

    def over(self, epochs: int) -> "Recipe":
        """The same recipe over another number of epochs; warm-up keeps its share."""
        share = self.warmup_epochs / self.epochs
        return replace(self, epochs=epochs, warmup_epochs=share * epochs)

    def to_json(self) -> str:
        """Writes the recipe as JSON, every field in its place."""
        return json.dumps(asdict(self), indent=2) + "\n"


def _holds(rule, value) -> bool:
    try:
        return bool(rule(value))
    except TypeError:
        return False


def _is_count(value) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= 1


def _is_count_or_none(value) -> bool:
    return value is None or _is_count(value)


def _is_share(value) -> bool:
    return 0 <= value <= 1


def _is_rate(value) -> bool:
    return 0 <= value < math.inf


def _is_positive(value) -> bool:
    return 0 < value < math.inf


def _is_overrides(value) -> bool:
    return isinstance(value, dict) and not {"image_size", "num_classes"} & set(value)


def _is_seed(value) -> bool:
    return type(value) is int and 0 <= value < 2**32


RULES = {
    "variant": (f"one of {sorted(VARIANTS)}", lambda v: v in VARIANTS),
    "dataset": ("a name or a folder", lambda v: isinstance(v, str) and v != ""),
    "image_size": ("a number of pixels or null", _is_count_or_none),
    "crop_area": (
        "(smallest, largest), both in (0, 1]",
        lambda v: len(v) == 2 and 0 < v[0] <= v[1] <= 1,
    ),
    "crop_aspect_ratio": (
        "(smallest, largest), both positive",
        lambda v: len(v) == 2 and 0 < v[0] <= v[1],
    ),
    "flip": ("true or false", lambda v: isinstance(v, bool)),
    "label_smoothing": ("in [0, 1]", _is_share),
    "model_overrides": ("an object without image_size, num_classes", _is_overrides),
    "epochs": ("a whole number of at least 1", _is_count),
    "batch_size": ("a whole number of at least 1", _is_count),
    "learning_rate": ("positive and finite", _is_positive),
    "learning_rate_batch": ("at least 1, or null", _is_count_or_none),
    "warmup_epochs": ("at least 0 and finite", _is_rate),
    "warmup_learning_rate": ("at least 0 and finite", _is_rate),
    "min_learning_rate": ("at least 0 and finite", _is_rate),
    "weight_decay": ("at least 0 and finite", _is_rate),
    "kind": (f"one of {list(KINDS)}", lambda v: v in KINDS),
    "alpha": ("in [0, 1]", _is_share),
    "temperature": ("positive and finite", _is_positive),
    "reduction": (f"one of {list(REDUCTIONS)}", lambda v: v in REDUCTIONS),
    "teacher": ("a path or null", lambda v: v is None or isinstance(v, str)),
    "seed": ("a whole number from 0 to 2**32 - 1", _is_seed),
}


def recipe_from_dict(values: dict) -> Recipe:
    """Makes a recipe of its fields, for instance of parsed JSON.

    Args:
        values: Field names and values; lists become tuples.

    Returns:
        The recipe.

    Raises:
        ValueError: If a field is unknown, missing or refused; all faults are listed.
    """
    known = [f.name for f in fields(Recipe)]
    faults = []
    for name in values.keys() - set(known):
        near = get_close_matches(name, known, n=1)
        hint = f" Did you mean {near[0]!r}?" if near else ""
        faults.append(f"A recipe has no field {name!r}.{hint}")
    for name in ("variant", "dataset"):
        if name not in values:
            faults.append(f"A recipe needs the field {name!r}.")
    if faults:
        raise ValueError("\n".join(faults))
    as_tuples = {k: tuple(v) if isinstance(v, list) else v for k, v in values.items()}
    return Recipe(**as_tuples)


def recipe_from_json(text: str) -> Recipe:
    """Reads a recipe that `Recipe.to_json` wrote, or that somebody wrote by hand.

    Args:
        text: A JSON object.

    Returns:
        The recipe.

    Raises:
        ValueError: If it is no JSON object, or a field is unknown, missing or refused.
    """
    try:
        values = json.loads(text)
    except json.JSONDecodeError as error:
        raise ValueError(f"A recipe must be JSON: {error}.") from error
    if not isinstance(values, dict):
        raise ValueError(f"A recipe must be a JSON object. Received: {text[:40]!r}.")
    return recipe_from_dict(values)
