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

--what=distillation measures a training step of one student without a teacher, with a
live teacher, and with what a cache of its logits kept: all, 16 of them, or the argmax.
The steps are those of `train`, with the same pixels from memory and random weights;
only who teaches differs. Ratios are of times: what a step costs, over the step without
a teacher.

Examples:
  python -m trainers benchmark --what=input --quick
  python -m trainers benchmark --dataset=~/imagenet/val --rounds=11
  python -m trainers benchmark --peer_python=~/with-timm/bin/python
  python -m trainers benchmark --what=distillation --teacher=regnety_032
"""

import sys
from pathlib import Path
from tempfile import TemporaryDirectory

from absl import flags

THOROUGH = {
    "input": {"rounds": 7, "seconds": 1.0, "batch_size": 64},
    "distillation": {
        "rounds": 25,
        "seconds": 1.0,
        "batch_size": 8,
        "student": "deit_tiny_distilled_patch16_224",
        "teacher": "regnety_160",
    },
}
QUICK = {
    "input": {"rounds": 3, "seconds": 0.2, "batch_size": 32},
    "distillation": {
        "rounds": 3,
        "seconds": 0.2,
        "batch_size": 8,
        "student": "deit_micro_distilled_patch4_32",
        "teacher": "regnety_micro_32",
    },
}
BASELINES = {"input": "timm", "distillation": "no teacher"}
COMPARED = {"input": "rate", "distillation": "time"}
TEACHING = {
    "no teacher": "none",
    "live teacher": "live",
    "cached, all": "all",
    "cached, 16": 16,
    "cached, hard": "hard",
}
IMAGE_SIZE = 224
NUM_MADE = 64  # images, where no dataset is given
MOST_IMAGES = 512  # of a dataset
JPEG_SUFFIXES = (".jpg", ".jpeg")
WHATS = ("input", "distillation")
ONLY_OF = {  # flags that have a meaning for one of them
    "dataset": "input",
    "peer_python": "input",
    "student": "distillation",
    "teacher": "distillation",
}


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
        "In less than two minutes, to see that it works: short rounds, small batches "
        "or small models.",
        flag_values=values,
    )
    flags.DEFINE_integer(
        "rounds",
        None,
        "How many rounds; without it 7 of input, 25 of distillation, or 3 with "
        "--quick.",
        lower_bound=1,
        flag_values=values,
    )
    flags.DEFINE_integer(
        "batch_size",
        None,
        "Images in a batch; without it 64 of input, or 32 with --quick, and 8 of "
        "distillation.",
        lower_bound=1,
        flag_values=values,
    )
    flags.DEFINE_string(
        "baseline",
        None,
        "The contestant that the others are compared with; without it timm, or 'no "
        "teacher'. If it is left out, there are no ratios.",
        flag_values=values,
    )
    flags.DEFINE_string(
        "peer_python",
        None,
        "The Python that has the packages of the others (pip install "
        "'keras-deit[bench]'); without it, the one that runs this.",
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
        "--quick.",
        flag_values=values,
    )


def main(values: flags.FlagValues) -> None:
    """Runs the contest, prints the table and writes the files.

    Raises:
        ValueError: If a flag is refused.
        RuntimeError: If a contestant failed; what the others did is written all the
            same.
    """
    from keras_deit._checks import check_choice
    from trainers._contest import run_contest
    from trainers._contest_report import write_report

    what, settings = values.what, _settings(values)
    baseline = values.baseline or BASELINES[what]
    output = Path(values.output or f"benchmarks/{what}.json").expanduser()
    with TemporaryDirectory() as folder:
        title, clock, contestants = PLANS[what](values, settings, Path(folder))
        check_choice("baseline", baseline, [c.name for c in contestants])
        output.parent.mkdir(parents=True, exist_ok=True)
        contest = run_contest(
            contestants,
            settings["rounds"],
            settings["seconds"],
            tell=lambda text: print(text, file=sys.stderr, flush=True),
        )
    heading = {"what": what, "title": title, "settings": settings}
    write_report(contest, heading, baseline, clock, output, COMPARED[what])
    if contest.errors:
        errors = "; ".join(f"{name}: {text}" for name, text in contest.errors.items())
        raise RuntimeError(f"Not everything could be measured. {errors}")


def _settings(values: flags.FlagValues) -> dict:
    """The numbers of this run; refuses flags that have no meaning for it."""
    from keras_deit._checks import check

    for name, what in ONLY_OF.items():
        rule = f"`{name}` has a meaning with --what={what} only."
        meant = values[name].value is None or values.what == what
        check(meant, rule, **{name: values[name].value}, what=values.what)
    settings = dict((QUICK if values.quick else THOROUGH)[values.what])
    for name in settings.keys() - {"seconds"}:
        if values[name].value is not None:
            settings[name] = values[name].value
    return settings


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


def _distillation(values: flags.FlagValues, settings: dict, folder: Path) -> tuple:
    """The title, the clock and the contestants of --what=distillation."""
    from keras_deit._checks import check_choice
    from keras_deit.models.variants import VARIANTS
    from trainers._contest import Contestant
    from trainers._contestants import MODULES

    models = {name: settings[name] for name in ("student", "teacher")}
    for name, variant in models.items():
        check_choice(name, variant, VARIANTS)
    small = values.quick and values.student is None and values.teacher is None
    task = {**models, "batch_size": settings["batch_size"]}
    return (
        f"A training step on one core, batches of {settings['batch_size']}"
        f"{', small models' if small else ''}: {models['student']} taught by "
        f"{models['teacher']}",
        "cpu_seconds",
        tuple(
            Contestant(
                name,
                MODULES / "distillation.py",
                {**task, "folder": str(folder / str(kept)), "teaching": kept},
            )
            for name, kept in TEACHING.items()
        ),
    )


PLANS = {"input": _input, "distillation": _distillation}
