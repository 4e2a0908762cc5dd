"""Walk the main job once, on real digits: teacher, student, proof, artifacts.

Trains a small RegNetY on scikit-learn's embedded handwritten digits, then a DeiT on the
labels alone and one that also learns from the RegNetY (same seed, same views, same
epochs), prints one table, exports the distilled student for TF Serving and for the
edge, and classifies the held-out digits with each artifact in a new process that does
not know keras_deit. A few minutes on two cores, no network, no GPU.

Example:
  python -m trainers demo --output=runs/demo
"""

import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

from absl import flags

EXAMPLES = Path(__file__).resolve().parents[1] / "examples"


def define_flags(values: flags.FlagValues) -> None:
    """Defines the flags of this program."""
    flags.DEFINE_string(
        "output", "runs/demo", "Folder of the runs.", flag_values=values
    )
    flags.DEFINE_string(
        "artifacts",
        "saved_models/demo",
        "Folder of the exported models.",
        flag_values=values,
    )
    flags.DEFINE_integer(
        "epochs",
        None,
        "Epochs of each of the three trainings, to try the demo in less time.",
        flag_values=values,
    )


def main(values: flags.FlagValues) -> None:
    """Walks the steps."""
    from keras_deit.training.report import plot_curves, read_history

    if not EXAMPLES.is_dir():
        raise FileNotFoundError("The demo needs the repository, with its examples/.")
    start = time.monotonic()
    output = Path(values.output)
    results = _train_all(output, values.epochs)
    curves = {
        name: read_history(r.directory / "history.csv") for name, r in results.items()
    }
    plot_curves(curves, output / "curves.png")
    version, tflite_file = _export(results["distilled"], Path(values.artifacts))
    images = _write_images(output / "images")
    served = _accuracy("classify_saved_model.py", version, images)
    edge = _accuracy("classify_tflite.py", tflite_file, images)
    _print_table(results)
    fused = results["distilled"].scores["fused"]["top1"]
    print(
        f"In a new process, without keras_deit: SavedModel {served:.2%}, TFLite "
        f"{edge:.2%} of the held-out digits right (in this one: {fused:.2%}).\n\n"
        f"Curves         {output}/curves.png (each run: curves.png, history.csv, "
        "tensorboard/)\n"
        f"TF Serving     {version}/ with certificate.json\n"
        f"Edge           {tflite_file} with its .certificate.json and .labels.txt\n"
        f"Held-out set   {images}/\n"
        f"Done in {(time.monotonic() - start) / 60:.1f} minutes."
    )


def _train_all(output: Path, epochs: int | None) -> dict:
    from keras_deit.training.run import train
    from trainers.recipes import find_recipe

    def run(step, name, recipe, program, **changes):
        recipe_with_changes = replace(find_recipe(recipe), **changes)
        if epochs is not None:
            recipe_with_changes = recipe_with_changes.over(epochs)
        teacher = f" --teacher={changes['teacher']}" if "teacher" in changes else ""
        print(
            f"\n--- {step} of 3: python -m trainers {program} --recipe={recipe}"
            f"{teacher} --output={output / name}",
            flush=True,
        )
        return train(recipe_with_changes, output / name, overwrite=True)

    teacher_path = str(output / "teacher" / "last.keras")
    return {
        "teacher": run(1, "teacher", "digits_teacher", "train_teacher"),
        "plain": run(2, "plain", "digits_plain", "train"),
        "distilled": run(
            3, "distilled", "digits_distilled", "train", teacher=teacher_path
        ),
    }


def _export(result, folder: Path) -> tuple[Path, Path]:
    from keras_deit.data.sources import load_source
    from keras_deit.export import saved_model, tflite

    print(
        "\n--- Export: python -m trainers export "
        f"--model={result.directory}/last.keras --output={folder}",
        flush=True,
    )
    source = load_source("digits", "validation")
    examples = list(source.in_order())
    checked = {
        "labels": source.class_names,
        "images": [example["image"].numpy() for example in examples],
        "image_labels": [int(example["label"]) for example in examples],
    }
    version = saved_model(result.model, folder, **checked)
    tflite_file = tflite(result.model, folder / f"{folder.name}.tflite", **checked)
    return version, tflite_file


def _write_images(folder: Path) -> Path:
    """Writes the held-out digits as PNG files named NUMBER_LABEL.png."""
    import tensorflow as tf

    from keras_deit.data.sources import load_source

    folder.mkdir(parents=True, exist_ok=True)
    for example in load_source("digits", "validation").in_order():
        name = f"{int(example['id']):03}_{int(example['label'])}.png"
        (folder / name).write_bytes(tf.io.encode_png(example["image"]).numpy())
    return folder


def _accuracy(script: str, artifact: Path, images: Path) -> float:
    """Runs an example program by itself, and counts how many labels are right."""
    command = [sys.executable, "-I", EXAMPLES / script, artifact, images]
    print(
        f"\n--- New process: python examples/{script} {artifact} {images}", flush=True
    )
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(f"{script} failed: {done.stderr[-2000:]}")
    rows = [line.split("\t") for line in done.stdout.splitlines()]
    right = [Path(path).stem.partition("_")[2] == label for path, label, _ in rows]
    return sum(right) / len(right)


def _print_table(results: dict) -> None:
    from keras_deit.models.complexity import count_parameters
    from keras_deit.training.evaluation import images_per_second
    from keras_deit.training.report import percent, print_table

    titles = {
        "teacher": "RegNetY teacher",
        "plain": "DeiT, labels only",
        "distilled": "DeiT, hard distillation",
    }
    rows = []
    for name, result in results.items():
        size = f"{count_parameters(result.model):,}"
        speed = f"{images_per_second(result.model):,.0f}"
        for index, (head, score) in enumerate(result.scores.items()):
            rest = ("", "") if index else (size, speed)
            top1, top5 = percent(score["top1"]), percent(score["top5"])
            rows.append((titles[name], head, top1, top5, *rest))
    print()
    columns = ("model", "head", "top-1", "top-5", "parameters", "images/s")
    print_table("Held-out digits, weights of the last epoch", columns, rows)
