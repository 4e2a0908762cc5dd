"""timm's training step; `worker.py` says how it is asked."""

from contextlib import nullcontext
from functools import partial

PACKAGES = ("timm", "torch", "numpy")
PATH = ()
NUM_BATCHES = 4  # in memory
NUM_CLASSES = 1000
LEARNING_RATE = 1e-6  # of the first step of the recipe
WEIGHT_DECAY = 0.05
ALPHA = 0.5


def tasks(how: dict, cases: dict, device: str, num_threads: int | None) -> dict:
    """The tasks, one for each case whose models timm has.

    Args:
        how: `student`, a variant; `drop_path_rate`; `batch_size`; `image_size`;
            `precision`, in Keras' words; `gradient_checkpointing`; and `compiled`,
            whether `torch.compile` compiles student and teacher.
        cases: By name of the task, the `teacher`: a variant, or None.
        device: "CPU" or "GPU".
        num_threads: How many threads work; None for as many as PyTorch likes.
    """
    import timm
    import torch

    if num_threads is not None:
        torch.set_num_threads(num_threads)
    return {
        name: partial(training_step, device=device, **how, **case)
        for name, case in cases.items()
        if all(map(timm.is_model, filter(None, [how["student"], case["teacher"]])))
    }


def training_step(
    student: str,
    teacher: str | None,
    drop_path_rate: float,
    batch_size: int,
    image_size: tuple[int, int],
    precision: str,
    gradient_checkpointing: bool,
    compiled: bool,
    device: str,
):
    """Prepares the step of a case, eager unless `compiled`; see `tasks`.

    The optimizer is that of our recipe, AdamW, which decays kernels only.
    """
    import timm
    import timm.optim
    import torch

    where = _where(device)
    pupil = timm.create_model(
        student, num_classes=NUM_CLASSES, drop_path_rate=drop_path_rate
    )
    if hasattr(pupil, "set_distilled_training"):
        pupil.set_distilled_training()
    pupil.set_grad_checkpointing(gradient_checkpointing)
    pupil = pupil.to(where).train()
    optimizer = timm.optim.create_optimizer_v2(
        pupil, "adamw", lr=LEARNING_RATE, weight_decay=WEIGHT_DECAY
    )
    tutor = None
    if teacher is not None:
        tutor = timm.create_model(teacher, num_classes=NUM_CLASSES).to(where).eval()
    if compiled:
        pupil, tutor = (model and torch.compile(model) for model in (pupil, tutor))
    scaler = torch.amp.GradScaler(where, enabled=precision == "mixed_float16")
    batches = _batches(batch_size, image_size, where)

    def step():
        with _casting(precision, where):
            loss = _loss(pupil, tutor, *next(batches))
        optimizer.zero_grad()
        scaler.scale(loss).backward()
        scaler.step(optimizer)
        scaler.update()
        loss.item()
        return batch_size

    if device == "GPU":
        step.peak_bytes = torch.cuda.max_memory_allocated
    return step


def _loss(pupil, tutor, pixels, labels):
    """That of our recipe.

    Cross entropy with the soft labels on the class head, and, where there is a teacher,
    as much of the cross entropy with what it says on the distillation head.
    """
    import torch
    from torch.nn.functional import cross_entropy

    pixels = _normalized(pixels)
    answers = None
    if tutor is not None:
        with torch.no_grad():
            answers = tutor(pixels).argmax(-1)
    outputs = pupil(pixels)
    heads = outputs if isinstance(outputs, tuple) else (outputs, outputs)
    loss = cross_entropy(heads[0].float(), labels)
    if answers is None:
        return loss
    return (1 - ALPHA) * loss + ALPHA * cross_entropy(heads[1].float(), answers)


def _where(device: str) -> str:
    """PyTorch's word for a device.

    Raises:
        RuntimeError: If it has no GPU, and ours are measured on one.
    """
    import torch

    if device == "GPU" and not torch.cuda.is_available():
        raise RuntimeError("PyTorch finds no GPU, and TensorFlow does.")
    return "cuda" if device == "GPU" else "cpu"


def _casting(precision: str, where: str):
    """The context in which a forward pass is computed."""
    import torch

    if precision == "float32":
        return nullcontext()
    dtype = getattr(torch, precision.removeprefix("mixed_"))
    return torch.autocast(where, dtype=dtype)


def _batches(batch_size: int, image_size: tuple[int, int], where: str):
    """Endless (bytes (B, 3, H, W), labels (B, Y)) out of memory."""
    from itertools import cycle

    import numpy as np
    import torch

    random = np.random.default_rng(0)
    shape = (NUM_BATCHES, batch_size, 3, *image_size)
    pixels = torch.from_numpy(random.integers(0, 256, shape, np.uint8)).to(where)
    labels = random.dirichlet(np.ones(NUM_CLASSES), shape[:2]).astype(np.float32)
    return cycle(zip(pixels, torch.from_numpy(labels).to(where), strict=True))


def _normalized(pixels):
    """As timm's loader does it, on the device."""
    import timm.data
    import torch

    mean, std = (
        torch.tensor(values, device=pixels.device).reshape(3, 1, 1) * 255
        for values in (
            timm.data.IMAGENET_DEFAULT_MEAN,
            timm.data.IMAGENET_DEFAULT_STD,
        )
    )
    return (pixels.float() - mean) / std
