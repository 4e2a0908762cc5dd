"""The plan of `benchmark --what=input`: batches of training, from JPEG files."""

from pathlib import Path

from keras_deit._checks import check
from trainers._contest import Contestant, Plan
from trainers._contestants import MODULES
from trainers._contestants.photographs import HEIGHT, WIDTH, write_photographs
from trainers._peers import peer_python

IMAGE_SIZE = 224
NUM_MADE = 64  # images, where no dataset is given
MOST_IMAGES = 512  # of a dataset
JPEG_SUFFIXES = (".jpg", ".jpeg")


def plan(values, settings: dict, folder: Path) -> Plan:
    """Plans the contest of our input, that of keras-cv and timm's.

    Args:
        values: The flags.
        settings: The numbers of this run.
        folder: A folder for what the contestants read.
    """
    python = peer_python(values)
    images = fill_with_images(values.dataset, settings["batch_size"], folder)
    task = {
        "folder": str(folder),
        "batch_size": settings["batch_size"],
        "image_size": IMAGE_SIZE,
    }
    theirs = {"python": python, "peers": ("timm",)}
    ours, timm = MODULES / "input.py", MODULES / "timm_input.py"
    return Plan(
        f"Input at {IMAGE_SIZE} pixels on one core: {images}",
        "cpu_seconds",
        (
            Contestant("keras_deit", ours, {**task, "engine": "own"}),
            Contestant("keras_deit, keras-cv", ours, {**task, "engine": "keras-cv"}),
            Contestant("timm", timm, {**task, "collate": "floats"}, **theirs),
            Contestant("timm, bytes", timm, {**task, "collate": "bytes"}, **theirs),
        ),
    )


def fill_with_images(dataset: str | None, batch_size: int, folder: Path) -> str:
    """Fills a folder of class folders with images; says which they are.

    Args:
        dataset: A folder of class folders with JPEGs; None for made-up photographs.
        batch_size: How many JPEGs there must be in it at least.
        folder: The folder to fill.

    Raises:
        ValueError: If there are fewer, or all in one folder.
    """
    if dataset is None:
        write_photographs(folder, NUM_MADE)
        return f"{NUM_MADE} made-up photographs of {WIDTH} x {HEIGHT}"
    root = Path(dataset).expanduser().absolute()
    files = sorted(p for p in root.rglob("*") if p.suffix.lower() in JPEG_SUFFIXES)
    chosen = files[:: max(1, -(-len(files) // MOST_IMAGES))]
    classes = {path.parent for path in chosen}
    check(
        len(chosen) >= batch_size and len(classes) >= 2,
        f"`dataset` must hold at least {batch_size} JPEGs in at least two folders.",
        dataset=dataset,
        images=len(chosen),
        folders=len(classes),
    )
    for index, path in enumerate(chosen):
        link = folder / path.parent.name / f"{index:04}.jpg"
        link.parent.mkdir(exist_ok=True)
        link.symlink_to(path)
        path.read_bytes()  # into memory
    return f"{len(chosen)} images of {dataset}"
