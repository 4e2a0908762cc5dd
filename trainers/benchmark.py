"""Measure speed, ours and that of others, on this machine.

Every contestant runs in its own process, one at a time, on the same core and with one
thread; in each round every task runs once, in a random order. What is reported are
medians of the rounds, ratios to a named baseline in the same round with their spread
(10th to 90th percentile), and the share of the core that other programs took. A table
is printed, and a JSON file with all rounds and a picture are written. A package that is
not installed leaves its contestant out; one that fails is named, the others go on, and
the exit code is not 0.

--what=input measures training input, from JPEG files to batches of the papers' recipe
(random resized crop, flip, RandAugment, random erasing, Mixup or CutMix) at 224 pixels,
stage by stage: ours, ours with the operations of keras-cv, and timm's transforms on PIL
images. Seconds are those that the core worked for the contestant, so that images/s are
images per second and core on a machine that is busy, too; files are read once before,
so they come from memory.

Examples:
  python -m trainers benchmark --what=input --quick
  python -m trainers benchmark --dataset=~/imagenet/val --rounds=11
  python -m trainers benchmark --peer_python=~/with-timm/bin/python
"""

import sys
from pathlib import Path
from tempfile import TemporaryDirectory

from absl import flags

QUICK = {"rounds": 3, "seconds": 0.2, "batch_size": 32}
THOROUGH = {"rounds": 7, "seconds": 1.0, "batch_size": 64}
IMAGE_SIZE = 224
NUM_MADE = 64  # images, where no dataset is given
MOST_IMAGES = 512  # of a dataset
JPEG_SUFFIXES = (".jpg", ".jpeg")
WHATS = ("input",)


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
        "In less than two minutes, to see that it works: short rounds, small batches.",
        flag_values=values,
    )
    flags.DEFINE_integer(
        "rounds",
        None,
        "How many rounds; without it 7, or 3 with --quick.",
        lower_bound=1,
        flag_values=values,
    )
    flags.DEFINE_string(
        "baseline",
        "timm",
        "The contestant that the others are compared with; if it is left out, there "
        "are no ratios.",
        flag_values=values,
    )
    flags.DEFINE_string(
        "peer_python",
        None,
        "The Python that has the packages of the others (pip install "
        "'keras-deit[bench]'); without it, the one that runs this.",
        flag_values=values,
    )


def main(values: flags.FlagValues) -> None:
    """Runs the contest, prints the table and writes the files.

    Raises:
        RuntimeError: If a contestant failed; what the others did is written all the
            same.
    """
    from keras_deit._checks import check_choice
    from trainers._contest import run_contest
    from trainers._contest_report import write_report

    settings = dict(QUICK if values.quick else THOROUGH)
    if values.rounds is not None:
        settings["rounds"] = values.rounds
    output = Path(values.output or f"benchmarks/{values.what}.json").expanduser()
    with TemporaryDirectory() as folder:
        title, clock, contestants = PLANS[values.what](values, settings, Path(folder))
        check_choice("baseline", values.baseline, [c.name for c in contestants])
        output.parent.mkdir(parents=True, exist_ok=True)
        contest = run_contest(
            contestants,
            settings["rounds"],
            settings["seconds"],
            tell=lambda text: print(text, file=sys.stderr, flush=True),
        )
    heading = {"what": values.what, "title": title, "settings": settings}
    write_report(contest, heading, values.baseline, clock, output)
    if contest.errors:
        errors = "; ".join(f"{name}: {text}" for name, text in contest.errors.items())
        raise RuntimeError(f"Not everything could be measured. {errors}")


def _input(values: flags.FlagValues, settings: dict, folder: Path) -> tuple:
    """The title, the clock and the contestants of --what=input."""
    from keras_deit._files import existing_file
    from trainers._contest import Contestant
    from trainers._contestants import MODULES

    python = str(existing_file(Path(values.peer_python or sys.executable).expanduser()))
    images = _images(values.dataset, settings["batch_size"], folder)
    task = {
        "folder": str(folder),
        "batch_size": settings["batch_size"],
        "image_size": IMAGE_SIZE,
    }
    ours, timm = MODULES / "input.py", MODULES / "timm_input.py"
    return (
        f"Input at {IMAGE_SIZE} pixels on one core: {images}",
        "cpu_seconds",
        (
            Contestant("keras_deit", ours, {**task, "engine": "own"}),
            Contestant("keras_deit, keras-cv", ours, {**task, "engine": "keras-cv"}),
            Contestant("timm", timm, {**task, "collate": "floats"}, python),
            Contestant("timm, bytes", timm, {**task, "collate": "bytes"}, python),
        ),
    )


def _images(dataset: str | None, batch_size: int, folder: Path) -> str:
    """Fills a folder of class folders with images; says which they are."""
    from keras_deit._checks import check
    from trainers._contestants.photographs import HEIGHT, WIDTH, write_photographs

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


PLANS = {"input": _input}
