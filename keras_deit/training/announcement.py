"""What a recipe comes to, printed before the first step."""

import math

from keras_deit.training.evaluation import compare
from keras_deit.training.parts import Parts

TEACHER_IMAGES = 2048  # validation images that the teacher is measured on beforehand


def announce(parts: Parts, resume: bool) -> dict:
    """Prints the effective recipe, and measures the teacher.

    Args:
        parts: What is going to be trained.
        resume: Whether the run goes on, so that the teacher was measured before.

    Returns:
        Numbers for the record: `teacher`, its `accuracy` on the first validation images
        and the student's `agreement` with it, in [0, 1], before the first step.
    """
    recipe, (train, validation) = parts.recipe, parts.sources
    height, width = parts.validation.element_spec[0].shape[1:3]
    views = parts.steps_per_epoch * recipe.batch_size
    images = math.ceil(views / recipe.repeats)
    print(
        f"{recipe.variant}: {parts.parameters:,} parameters, "
        f"{parts.macs / 1e6:,.1f} million multiply-adds an image"
        + (f", from {recipe.weights}" if recipe.weights else "")
        + f"\n{train.name}: {train.num_examples:,} training and "
        f"{validation.num_examples:,} validation images, "
        f"{len(parts.class_names)} classes, {height} x {width} pixels\n"
        f"{recipe.epochs} epochs of {parts.steps_per_epoch:,} steps of "
        f"{recipe.batch_size} views: {recipe.epochs * parts.steps_per_epoch:,} steps, "
        f"{images:,} distinct images an epoch\n"
        f"{recipe.optimizer}: peak learning rate {recipe.peak_learning_rate:.3g}"
        f"{_scaling(recipe)} after {recipe.warmup_epochs:g} epochs, schedule "
        f"{recipe.schedule}; weight decay {recipe.weight_decay:g}; seed {recipe.seed}\n"
        f"{_computing(parts)}"
    )
    if parts.distiller.teacher is None:
        return {}
    what = f"{recipe.kind} distillation, alpha {recipe.alpha:g}"
    if recipe.kind == "none":
        what = "labels only, the agreement is reported"
    if parts.cache is not None:
        return _announce_cache(parts, what)
    named = recipe.teacher or parts.distiller.teacher.version
    named = list(named) if isinstance(named, tuple) else named
    if recipe.train_teacher:
        whole = "its head" if recipe.train_teacher == "head" else "all of it"
        what += f"; {whole} is trained on the labels as well"
    print(f"Teacher {named}: {what}", flush=True)
    if resume:
        return {}
    batches = parts.validation.take(math.ceil(TEACHER_IMAGES / recipe.batch_size))
    accuracy, agreement = compare(
        parts.distiller.teacher, parts.student, batches, parts.workers.gather
    )
    print(
        f"Before the first step the teacher is right on {accuracy:.2%} of up to "
        f"{TEACHER_IMAGES:,} validation images, and the student agrees with it on "
        f"{agreement:.2%}."
    )
    return {"teacher": {"path": named, "accuracy": accuracy, "agreement": agreement}}


def _announce_cache(parts: Parts, what: str) -> dict:
    """Prints what is known of a teacher that is not there."""
    cache, epochs = parts.cache, parts.recipe.epochs
    name, accuracy = (
        cache.header["teacher"]["name"],
        cache.facts.get("teacher_accuracy"),
    )
    kept = cache.header["keep_logits"]
    print(f"Teacher cache {cache.path}: {what}; keep_logits {kept}")
    if cache.epochs < epochs:
        print(
            f"Its {cache.epochs} epochs come again, views and all, in the {epochs} of "
            "this run."
        )
    known = ""
    if accuracy is not None:
        known = (
            f", which was right on {accuracy:.2%} of up to {TEACHER_IMAGES:,} of them"
        )
    print(f"The validation images are not shown to {name}{known}.", flush=True)
    return {"teacher": {"path": name, "accuracy": accuracy}}


def _computing(parts: Parts) -> str:
    """On what, and in what precision."""
    recipe, strategy = parts.recipe, parts.workers.strategy
    replicas, count = strategy.num_replicas_in_sync, parts.workers.count
    what = [recipe.precision]
    if replicas > 1:
        on = f" on {count} workers" if count > 1 else ""
        name, share = type(strategy).__name__, recipe.batch_size // replicas
        what.append(f"{name}: {replicas} replicas of {share} views{on}")
    if recipe.accumulate_steps > 1:
        what.append(f"{recipe.accumulate_steps} micro-batches in a step")
    if recipe.gradient_checkpointing:
        what.append("gradient checkpointing")
    if recipe.jit_compile:
        what.append("compiled by XLA")
    return "; ".join(what)


def _scaling(recipe) -> str:
    if recipe.learning_rate_batch is None:
        return ""
    return (
        f" ({recipe.learning_rate:g} x {recipe.batch_size} / "
        f"{recipe.learning_rate_batch})"
    )
