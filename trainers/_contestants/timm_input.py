"""PIL and timm's own transforms on one core; `worker.py` says how it is asked."""

import random
from functools import reduce
from io import BytesIO
from itertools import cycle, islice
from pathlib import Path

PACKAGES = ("timm", "torch", "torchvision", "pillow")
PATH = ("read", "decode", "resize", "flip", "RandAugment", "erasing", "recipe")
STEP = 16  # images in a step of the stages before the batch
IN_MEMORY = 64  # images that a stage by itself works on


def tasks(folder: str, batch_size: int, image_size: int, collate: str) -> dict:
    """The tasks of a folder; those of the same name as in `input.py` do the same.

    "resize" holds the crop, "erasing" what timm does before it: floats are made and
    normalized. "recipe" adds that a batch is put together and mixed.

    Args:
        folder: Of class folders with JPEGs.
        batch_size: Images in a batch.
        image_size: Side of the views, in pixels.
        collate: "floats": views are normalized, erased and mixed as floats, as DeiT
            does it. "bytes": whole grey levels are mixed while they are put together,
            and the accelerator normalizes and erases, as timm's own script does it; of
            these only "recipe" is measured.
    """
    import torch
    from timm.data import create_transform

    torch.set_num_threads(1)
    random.seed(0)
    torch.manual_seed(0)
    transform = create_transform(
        image_size,
        is_training=True,
        auto_augment="rand-m9-mstd0.5-inc1",
        interpolation="bicubic",
        re_prob=0.25,
        re_mode="pixel",
        use_prefetcher=collate == "bytes",
    )
    crop, flip, augment, *_ = transform.transforms
    files = _files(folder)

    def views(*transforms):
        return (reduce(_apply, transforms, _image(_read(path))) for path in files)

    def batches():
        return _mixed_batches(views(transform), batch_size, collate)

    if collate == "bytes":
        return {"recipe": lambda: _step(batches(), batch_size, 1)}
    return {
        "read": lambda: _step(map(_read, _files(folder))),
        "decode": lambda: _step(views()),
        "resize": lambda: _step(views(crop)),
        "flip": lambda: _step(views(crop, flip)),
        "RandAugment": lambda: _step(views(crop, flip, augment)),
        "erasing": lambda: _step(views(transform)),
        "recipe": lambda: _step(batches(), batch_size, 1),
        "only decode": lambda: _step(map(_image, _again(map(_read, files)))),
        "only resize": lambda: _step(map(crop, _again(views()))),
        "only RandAugment": lambda: _step(map(augment, _again(views(crop, flip)))),
        "only mix": lambda: _step(
            _mixed_batches(_again(views(transform)), batch_size, collate), batch_size, 1
        ),
    }


def _files(folder: str):
    """Endless (path, label), in a new order each time."""
    paths = sorted(Path(folder).rglob("*.*"))
    while True:
        yield from random.sample(paths, len(paths))


def _read(path: Path) -> bytes:
    return path.read_bytes()


def _image(encoded: bytes):
    from PIL import Image

    return Image.open(BytesIO(encoded)).convert("RGB")


def _apply(image, transform):
    return transform(image)


def _again(elements):
    """The first elements from memory, endlessly."""
    return cycle(list(islice(elements, IN_MEMORY)))


def _mixed_batches(views, batch_size: int, collate: str):
    """Endless mixed batches of views."""
    import torch
    from timm.data.mixup import FastCollateMixup, Mixup

    settings = {"mixup_alpha": 0.8, "cutmix_alpha": 1.0, "label_smoothing": 0.1}
    kind = Mixup if collate == "floats" else FastCollateMixup
    mix = kind(**settings, num_classes=1000)
    while True:
        batch = list(islice(views, batch_size))
        labels = torch.zeros(batch_size, dtype=torch.int64)
        if collate == "floats":
            yield mix(torch.stack(batch), labels)
        else:
            yield mix(list(zip(batch, labels, strict=True)))


def _step(elements, items: int = 1, number: int = STEP):
    """Draws so many elements, of so many items each, from an endless iterator."""

    def step():
        for _ in islice(elements, number):
            pass
        return items * number

    return step
