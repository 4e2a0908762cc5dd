"""Measure speed, ours and that of others, on this machine.

Every contestant runs in its own process, one at a time, on the same core and with one
thread; in each round every task runs once, in a random order. What is reported are
medians of the rounds, ratios to a named baseline in the same round with their spread
(10th to 90th percentile), and the share of the core that other programs took. Tables
are printed, and a JSON file with all rounds and a picture are written. A package that
is not installed leaves its contestant out; one that fails is named, the others go on,
and the exit code is not 0.

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

--what=inference measures one model, with the same random weights, in one engine after
another: timm's (in eager mode), KerasHub's (with weights of its own), Keras' `predict`
and a compiled function, and the artifacts of `export`, each at several keep rates and
batch sizes. An engine is timed only if it answers as the model does. The picture shows
GMACs against images/s. With --cores=all they work on all cores, by the clock on the
wall.

--what=train measures a training step on all cores, or on the GPUs if there are any, by
the clock on the wall: ours, as `fit` makes it of the official recipe of DeiT, and
timm's, each with and without a live teacher, in each precision; ours also from files,
over several replicas, in parts of a batch. Beside images/s stand what share of the
step the teacher takes, what share input from files takes (or delays), and the largest
memory. Where other programs take much of the cores, take --cores=one: threads that wait
for one another lose more than the others took.

Examples:
  python -m trainers benchmark --what=input --quick
  python -m trainers benchmark --dataset=~/imagenet/val --rounds=11
  python -m trainers benchmark --peer_python=~/with-timm/bin/python
  python -m trainers benchmark --what=distillation --teacher=regnety_032
  python -m trainers benchmark --what=inference --variants=t2t_vit_14
  python -m trainers benchmark --what=train --replicas=1,2 --gradient_checkpointing
"""

import sys
from importlib import import_module
from pathlib import Path
from tempfile import TemporaryDirectory

from absl import flags

from trainers._benchmark_flags import define_flags, settings_of

__all__ = ["define_flags", "main"]

BASELINES = {  # the first that was measured
    "input": ("timm",),
    "distillation": ("no teacher",),
    "inference": ("timm_float32", "keras_function"),
    "train": ("timm_float32", "keras_float32"),
}
COMPARED = {"input": "rate", "distillation": "time"}


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
    from trainers._inference_report import write_inference_report
    from trainers._train_report import write_train_report

    what, settings = values.what, settings_of(values)
    output = Path(values.output or f"benchmarks/{what}.json").expanduser()
    with TemporaryDirectory() as folder:
        make_plan = import_module(f"trainers._benchmark_{what}").plan
        plan = make_plan(values, settings, Path(folder))
        if values.baseline is not None:
            check_choice(
                "baseline", values.baseline, [c.name for c in plan.contestants]
            )
        output.parent.mkdir(parents=True, exist_ok=True)
        contest = run_contest(
            plan.contestants,
            settings["rounds"],
            settings["seconds"],
            tell=lambda text: print(text, file=sys.stderr, flush=True),
            all_cores=plan.all_cores,
        )
    measured = {name for name, _ in contest.rounds}
    choices = [name for name in BASELINES[what] if name in measured]
    baseline = values.baseline or (choices or BASELINES[what])[0]
    heading = {"what": what, "title": plan.title, "settings": settings, **plan.facts}
    if what == "inference":
        write_inference_report(contest, heading, baseline, plan.clock, output)
    elif what == "train":
        write_train_report(contest, heading, baseline, plan.clock, output)
    else:
        compared = COMPARED[what]
        write_report(contest, heading, baseline, plan.clock, output, compared)
    if contest.errors:
        errors = "; ".join(f"{name}: {text}" for name, text in contest.errors.items())
        raise RuntimeError(f"Not everything could be measured. {errors}")
