"""Proves that a run which is killed ends like one that never was."""

import json
import random
import subprocess
import sys
import time
from pathlib import Path

STEPS = 2  # from one checkpoint to the next
PATIENCE = 300  # seconds without a checkpoint after which something is wrong
FILES = ("history.csv", "history.jsonl", "per_class.csv", "result.json")


def verify_resume(recipe, folder: Path, kills: int = 2) -> None:
    """Trains a recipe twice, once undisturbed, once with kills, and compares.

    Args:
        recipe: What to compute; a short one.
        folder: Folder for both runs.
        kills: How often the second run is killed, at random moments.

    Raises:
        RuntimeError: If the two differ in anything, or leave half-written files.
    """
    (folder / "recipe.json").write_text(recipe.to_json())
    whole, killed = folder / "undisturbed", folder / "killed"
    print("An undisturbed run ...", flush=True)
    finish(folder / "recipe.json", whole)
    print(f"The same, killed (kill -9) {kills} times ...", flush=True)
    moments = run_with_kills(folder / "recipe.json", killed, kills, delay=0.0)
    if not moments:
        raise RuntimeError("The run ended before it could be killed.")
    differences = compare(whole, killed)
    if differences:
        raise RuntimeError("The two differ in: " + "; ".join(differences))
    print(
        f"Killed after {', '.join(moments)}, the run ended with the same weights, "
        "bit for bit, the same history and no half-written file."
    )


def _command(recipe: Path, output: Path, checkpoint_steps: int) -> list[str]:
    return [
        *(sys.executable, "-m", "trainers", "train", f"--recipe={recipe}"),
        f"--output={output}",
        f"--checkpoint_steps={checkpoint_steps}",
    ]


def finish(recipe: Path, output: Path, checkpoint_steps: int = STEPS) -> None:
    """Runs a recipe to its end, or the rest of it, in a process of its own.

    Raises:
        RuntimeError: If it fails; the end of what it said is part of the message.
    """
    command = _command(recipe, output, checkpoint_steps)
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(f"{' '.join(command)} failed: {done.stderr[-2000:]}")


def run_with_kills(
    recipe: Path,
    output: Path,
    kills: int,
    checkpoint_steps: int = STEPS,
    seed: int = 0,
    delay: float = 1.0,
) -> list[str]:
    """Runs a recipe, kills it at random moments, and at last lets it end.

    Args:
        recipe: A `.json` file.
        output: Folder of the run.
        kills: How often it is killed; less often if it is at its end before.
        checkpoint_steps: Steps from one checkpoint to the next.
        seed: Of the moments.
        delay: The process is killed up to so many seconds after a new checkpoint.

    Returns:
        The newest checkpoint at each kill.

    Raises:
        RuntimeError: If the run fails by itself.
    """
    moments, chance = [], random.Random(seed)
    for _ in range(kills):
        before = _newest(output)
        command = _command(recipe, output, checkpoint_steps)
        with (output.parent / f"{output.name}.log").open("a") as log:
            process = subprocess.Popen(command, stdout=log, stderr=log)
        try:
            start = time.monotonic()
            while process.poll() is None and _newest(output) == before:
                if time.monotonic() - start > PATIENCE:
                    raise RuntimeError(f"No checkpoint in {PATIENCE} s: {log.name}")
                time.sleep(0.002)
            time.sleep(chance.uniform(0, delay))
        finally:
            died_by_itself = process.poll() is not None
            process.kill()
            process.wait()
        if (output / "result.json").exists():
            return moments
        if died_by_itself:
            raise RuntimeError(f"The run failed: {Path(log.name).read_text()[-2000:]}")
        moments.append(_newest(output) or "no checkpoint")
    finish(recipe, output, checkpoint_steps)
    return moments


def _newest(output: Path) -> str | None:
    names = sorted(p.stem for p in (output / "checkpoints").glob("epoch-*.safetensors"))
    return names[-1] if names else None


def compare(whole: Path, killed: Path) -> list[str]:
    """Names everything in which two finished runs differ."""
    import keras
    import numpy as np

    differences = [
        name for name in FILES if _content(whole / name) != _content(killed / name)
    ]
    for path in sorted(whole.glob("*.keras")):
        first, second = (
            keras.saving.load_model(folder / path.name, compile=False).weights
            for folder in (whole, killed)
        )
        differences += [
            f"{path.name}: {a.path}"
            for a, b in zip(first, second, strict=True)
            if not np.array_equal(*map(keras.ops.convert_to_numpy, (a, b)))
        ]
    return differences + [str(path) for path in killed.rglob(".*")]


def _content(path: Path):
    if path.suffix != ".json":
        return path.read_text()
    # A process counts the graphs that it traced itself.
    return {**json.loads(path.read_text()), "graphs": None}
