"""One measurement of `benchmark`: its plan, its contest, its report."""

import sys
from collections.abc import Collection
from dataclasses import replace
from functools import partial
from importlib import import_module
from pathlib import Path
from tempfile import TemporaryDirectory

BASELINES = {  # the first that was measured
    "input": ("timm",),
    "distillation": ("no teacher",),
    "inference": ("timm_float32", "keras_function"),
    "train": ("timm_float32", "keras_float32"),
    "startup": ("keras_hub", "keras_deit", "timm", "litert"),
    "softsplit": ("torch nn.Unfold", "gather (ours)"),
}


def measure(
    values,
    output: Path,
    only: Collection[str] | None = None,
    tasks: Collection[str] | None = None,
) -> None:
    """Runs the contest of --what, prints the table and writes the files.

    Args:
        values: The flags.
        output: The JSON file to write; the picture lies beside it.
        only: The contestants that take part; None for all of the plan.
        tasks: What of theirs is measured; None for all.

    Raises:
        ValueError: If a flag is refused.
        RuntimeError: If a contestant failed; what the others did is written all the
            same.
    """
    from trainers._benchmark_settings import settings_of

    settings = settings_of(values)
    with TemporaryDirectory() as folder:
        make_plan = import_module(f"trainers._benchmark_{values.what}").plan
        plan = _with_peers(make_plan(values, settings, Path(folder)), values, only)
        contest = _contest_of(plan, values.baseline, settings, tasks, output)
    contest.left_out = {**plan.left_out, **contest.left_out}
    contest.errors = {**plan.errors, **contest.errors}
    measured = {name for name, _ in contest.rounds}
    named = BASELINES[values.what]
    choices = [name for name in named if name in measured]
    baseline = values.baseline or (choices or named)[0]
    heading = {
        "what": values.what,
        "title": plan.title,
        "settings": settings,
        **plan.facts,
    }
    _report_of(values.what)(contest, heading, baseline, plan.clock, output)
    if contest.errors:
        errors = "; ".join(f"{name}: {text}" for name, text in contest.errors.items())
        raise RuntimeError(f"Not everything could be measured. {errors}")


def _with_peers(plan, values, only: Collection[str] | None):
    """The plan without those who take no part."""
    from trainers._peers import left_out_by

    wanted = [c for c in plan.contestants if only is None or c.name in only]
    left_out = left_out_by(values, {c.name: c.peers for c in wanted})
    return replace(
        plan,
        contestants=tuple(c for c in wanted if c.name not in left_out),
        left_out={**plan.left_out, **left_out},
    )


def _contest_of(plan, baseline: str | None, settings: dict, tasks, output: Path):
    """Runs the contest of a plan."""
    from keras_deit._checks import check_choice
    from trainers._contest import run_contest
    from trainers._startup import run_startup

    if baseline is not None:
        check_choice("baseline", baseline, [c.name for c in plan.contestants])
    output.parent.mkdir(parents=True, exist_ok=True)
    run = run_startup if plan.starts_anew else partial(run_contest, tasks=tasks)
    return run(
        plan.contestants,
        settings["rounds"],
        settings["seconds"],
        tell=lambda text: print(text, file=sys.stderr, flush=True),
        all_cores=plan.all_cores,
    )


def _report_of(what: str):
    """Who prints the tables of a measurement, and writes its files."""
    from trainers._contest_report import write_report
    from trainers._inference_report import write_inference_report
    from trainers._step_report import write_step_report
    from trainers._train_report import write_train_report

    return {
        "input": write_report,
        "distillation": partial(write_report, compared="time"),
        "inference": write_inference_report,
        "train": write_train_report,
        "startup": write_step_report,
        "softsplit": write_step_report,
    }[what]
