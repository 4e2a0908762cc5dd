"""A recipe: everything that decides what a run computes."""

import json
from dataclasses import asdict, dataclass, field, fields, replace
from difflib import get_close_matches

from keras_deit.data.augmentation import Augmentation
from keras_deit.data.mixing import Mixing
from keras_deit.models.variants import VARIANTS
from keras_deit.training.recipe_rules import RULES, contradictions

_LOSS = ("kind", "alpha", "temperature", "reduction")  # of distillation


@dataclass(frozen=True)
class Recipe:
    """Everything that decides what a run computes, with DeiT's defaults.

    Attributes:
        variant: The model to train, one of `list_variants()`, or a network of
            `keras.applications` as "keras:ResNet50".
        dataset: "digits", a folder, or a name of TensorFlow Datasets.
        image_size: Side of the views, in pixels; None takes the variant's.
        model_overrides: Fields of the variant's config to change, for instance
            {"drop_path_rate": 0.1}.
        weights: What to start from: None (random weights), "pretrained", or a file.
        train_mode: Whether the model is in training mode while it is trained. If not,
            there is no stochastic depth and batch norm keeps its statistics, as in the
            official fine-tuning.
        head_epochs: Epochs, part of `epochs`, in which the heads alone are trained, on
            the frozen network in inference mode.

        crop_area: Smallest and largest share of the image in a training crop, (0, 1].
        crop_aspect_ratio: Smallest and largest width over height of a training crop.
        flip: Whether half of the training views are mirrored left to right.
        rand_augment: RandAugment's policy in timm's words; None for none.
        color_jitter: Strength of the color jitter, in [0, 1]; without RandAugment only.
        erasing: Probability that a random box is erased, in [0, 1].
        augment: Who carries out the operations of RandAugment: "own" or "keras-cv".
        mixup: Alpha of Mixup; 0 for none.
        cutmix: Alpha of CutMix; 0 for none.
        mix_probability: Probability that a batch is mixed at all, in [0, 1].
        mix_switch_probability: Probability of CutMix, where there are both, in [0, 1].
        label_smoothing: Share of a label spread evenly over all classes, in [0, 1].
        repeats: Views of an image in a batch. An epoch has as many views as the
            dataset has images, hence a share 1 / repeats of the images.

        epochs: How often as many views are seen as there are images.
        batch_size: B, images in a step, over all devices.
        accumulate_steps: Micro-batches that a step takes one after the other, to need
            less memory; must divide `batch_size`.
        gradient_checkpointing: Whether a step keeps only what goes from block to block,
            and computes the rest again for the gradient: less memory, more time.
        precision: What the student computes in: "float32", "mixed_bfloat16" or
            "mixed_float16" (whose loss is scaled). Weights, normalizations' statistics,
            attention weights, logits and losses are float32 in each.
        jit_compile: Whether XLA compiles the step. Not on a CPU in bfloat16.
        optimizer: "adamw" or "sgd" (with Nesterov's momentum off).
        momentum: Of "sgd", in [0, 1).
        learning_rate: Peak of the learning rate for `learning_rate_batch` images.
        learning_rate_batch: The rate is scaled by `batch_size / learning_rate_batch`;
            null leaves it as it is.
        schedule: How the learning rate falls: "cosine" (at each step, from the end of
            the warm-up), "epochs" (timm's: at each epoch, a cosine that the warm-up
            does not shift), "late_epochs" (the official DeiT and EViT: the same, one
            epoch late) or "constant" (after the warm-up).
        warmup_epochs: Epochs of linear warm-up, part of `epochs`.
        warmup_learning_rate: Learning rate of the first step.
        min_learning_rate: Learning rate at the end.
        cooldown_epochs: Last epochs, part of `epochs`, that stay at the learning rate
            of the end.
        weight_decay: Share of a kernel that is taken away at each step, times the
            learning rate; kernels only.
        layer_decay: Factor of the learning rate from a block to the one before it, in
            (0, 1]; 1 for one rate.
        clip_norm: Largest norm of all gradients together; None for no limit.
        ema_decay: Decay of the moving average of the weights, in [0, 1); None for no
            average.
        early_stop_epochs: Epochs without a better validation accuracy after which the
            run stops; None never stops.
        keep_rate_start_epoch: Epoch at which EViT begins to drop tokens.
        keep_rate_ramp_epochs: Epochs over which the keep rate falls from 1 to the
            model's own, on half a cosine; 0 for at once.
        keep_rate_stages: Keep rates on the way, each a graph of its own.

        kind: "none", "soft" or "hard" distillation.
        alpha: Weight of the distillation loss, in [0, 1].
        temperature: Of soft distillation.
        reduction: Of soft distillation, "batchmean" or "numel".
        teacher: Path of a `.keras` file or of a SavedModel's folder, or the name of a
            variant; several of them are an ensemble. Needed, unless there is a
            `teacher_cache` or `kind` is "none".
        teacher_weights: Of a teacher that is the name of a variant: "pretrained" (also
            if None), a file (of the dataset's classes or, with `teacher_classes`, of
            ImageNet's), or, if it is trained, "random".
        teacher_image_size: Side of the teacher's input, in pixels; None takes the
            teacher's own.
        teacher_precision: What the teacher computes in, as `precision`; None leaves a
            file as it is, and takes float32 for a variant.
        teacher_from_logits: Whether the teacher returns logits, not probabilities.
        teacher_signature: Of a SavedModel; None takes the one that fits.
        teacher_shares: Of an ensemble, how much each member counts; None for all alike.
        teacher_mean: Of an ensemble, what is averaged: "logits" or "probabilities".
        teacher_classes: For each class of the dataset the teacher's class, by index or
            name; None matches the names, or takes the same order where the teacher has
            no names.
        teacher_cache: Folder that `cache_teacher` made, in place of a teacher in
            memory. If it has fewer epochs than the run, they come again, views and all.
        train_teacher: Whether the teacher is trained as well, on the labels: false,
            true, or "head" for its head alone.
        teacher_learning_rate: Peak of the learning rate of a teacher that is trained;
            None takes the student's. Its schedule, optimizer and decay are the
            student's too; a rate before or after the peak is cut at it.
        seed: Of the weights, the order of the images and every view.

    Raises:
        ValueError: If a field is refused, or two contradict each other; all faults are
            listed.
    """

    variant: str
    dataset: str
    image_size: int | None = None
    model_overrides: dict = field(default_factory=dict)
    weights: str | None = None
    train_mode: bool = True
    head_epochs: int = 0

    crop_area: tuple[float, float] = (0.08, 1.0)
    crop_aspect_ratio: tuple[float, float] = (3 / 4, 4 / 3)
    flip: bool = True
    rand_augment: str | None = "rand-m9-mstd0.5-inc1"
    color_jitter: float = 0.0
    erasing: float = 0.25
    augment: str = "own"
    mixup: float = 0.8
    cutmix: float = 1.0
    mix_probability: float = 1.0
    mix_switch_probability: float = 0.5
    label_smoothing: float = 0.1
    repeats: int = 1

    epochs: int = 300
    batch_size: int = 1024
    accumulate_steps: int = 1
    gradient_checkpointing: bool = False
    precision: str = "float32"
    jit_compile: bool = False
    optimizer: str = "adamw"
    momentum: float = 0.9
    learning_rate: float = 5e-4
    learning_rate_batch: int | None = 512
    schedule: str = "cosine"
    warmup_epochs: float = 5
    warmup_learning_rate: float = 1e-6
    min_learning_rate: float = 1e-5
    cooldown_epochs: int = 0
    weight_decay: float = 0.05
    layer_decay: float = 1.0
    clip_norm: float | None = None
    ema_decay: float | None = None
    early_stop_epochs: int | None = None
    keep_rate_start_epoch: int = 0
    keep_rate_ramp_epochs: int = 0
    keep_rate_stages: int = 4

    kind: str = "none"
    alpha: float = 0.5
    temperature: float = 1.0
    reduction: str = "batchmean"
    teacher: str | tuple | None = None
    teacher_weights: str | None = None
    teacher_image_size: int | None = None
    teacher_precision: str | None = None
    teacher_from_logits: bool = True
    teacher_signature: str | None = None
    teacher_shares: tuple | None = None
    teacher_mean: str = "logits"
    teacher_classes: tuple | None = None
    teacher_cache: str | None = None
    train_teacher: bool | str = False
    teacher_learning_rate: float | None = None
    seed: int = 0

    def __post_init__(self):
        """Checks the values, and raises one `ValueError` that lists all faults."""
        faults = [
            f"`{name}` must be {rule}. Received: {name}={getattr(self, name)!r}."
            for name, (rule, holds) in RULES.items()
            if not _holds(holds, getattr(self, name))
        ]
        if not faults:  # each by itself is sound: do they fit together?
            faults = contradictions(self)
        if faults:
            raise ValueError("\n".join(faults))

    @property
    def peak_learning_rate(self) -> float:
        """The learning rate after warm-up, scaled to the batch."""
        if self.learning_rate_batch is None:
            return self.learning_rate
        return self.learning_rate * self.batch_size / self.learning_rate_batch

    @property
    def augmentation(self) -> Augmentation:
        """What a training view goes through."""
        return Augmentation(
            crop_area=self.crop_area,
            crop_aspect_ratio=self.crop_aspect_ratio,
            flip=self.flip,
            rand_augment=self.rand_augment,
            color_jitter=self.color_jitter,
            erasing=self.erasing,
            engine=self.augment,
        )

    @property
    def mixing(self) -> Mixing | None:
        """How the views of a batch are mixed; None if they are not."""
        if not (self.mixup or self.cutmix) or not self.mix_probability:
            return None
        return Mixing(
            self.mixup, self.cutmix, self.mix_probability, self.mix_switch_probability
        )

    def over(self, epochs: int) -> "Recipe":
        """The same recipe over another number of epochs; each phase keeps its share."""
        scale = epochs / self.epochs

        def whole(count: int) -> int:
            return min(round(count * scale), epochs - 1)

        start = whole(self.keep_rate_start_epoch)
        return replace(
            self,
            epochs=epochs,
            warmup_epochs=self.warmup_epochs * scale,
            cooldown_epochs=int(self.cooldown_epochs * scale),
            head_epochs=whole(self.head_epochs),
            keep_rate_start_epoch=start,
            keep_rate_ramp_epochs=min(
                whole(self.keep_rate_ramp_epochs), epochs - 1 - start
            ),
        )

    def without_teacher(self) -> "Recipe":
        """The same recipe on the labels alone, with nothing that is about a teacher."""
        return self._with_defaults(lambda name: "teacher" in name or name in _LOSS)

    def without_live_teacher(self) -> "Recipe":
        """The same recipe with a cache, if it has one, and no teacher beside it."""
        return self._with_defaults(lambda n: "teacher" in n and n != "teacher_cache")

    def _with_defaults(self, chosen) -> "Recipe":
        return replace(
            self, **{f.name: f.default for f in fields(self) if chosen(f.name)}
        )

    def to_json(self) -> str:
        """Writes the recipe as JSON, every field in its place."""
        return json.dumps(asdict(self), indent=2) + "\n"


def _holds(rule, value) -> bool:
    try:
        return bool(rule(value))
    except TypeError:
        return False


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
    for name in sorted(values.keys() - set(known)):
        near = get_close_matches(name, known, n=1)
        hint = f" Did you mean {near[0]!r}?" if near else ""
        faults.append(f"A recipe has no field {name!r}.{hint}")
    for name in ("variant", "dataset"):
        if name not in values:
            faults.append(f"A recipe needs the field {name!r}.")
    # What is missing stands in for the moment, so that other faults are found as well.
    fine = {"variant": next(iter(VARIANTS)), "dataset": "digits"} | {
        name: tuple(value) if isinstance(value, list) else value
        for name, value in values.items()
        if name in known
    }
    try:
        recipe = Recipe(**fine)
    except ValueError as error:
        faults.append(str(error))
    if faults:
        raise ValueError("\n".join(faults))
    return recipe


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
