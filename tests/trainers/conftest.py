import contextlib
import io
from types import SimpleNamespace

import keras
import numpy as np
import pytest
from PIL import Image

from keras_deit import create_model, save_weights
from trainers.__main__ import main

QUICK = ("--epochs=1", "--set=batch_size=256", "--set=warmup_epochs=0")
SMALL_TEACHER = (
    '--set=model_overrides={"depth": 2, "stem_width": 8, "initial_width": 8, '
    '"width_slope": 8.0, "group_width": 8}'
)
SMALL_STUDENT = '--set=model_overrides={"depth": 1, "embed_dim": 16, "num_heads": 2}'


@pytest.fixture
def run_program(capsys):
    """Runs a program in this process: its exit code, and what it said."""

    def run(*arguments):
        capsys.readouterr()
        code = main([str(argument) for argument in arguments])
        said = capsys.readouterr()
        return SimpleNamespace(code=code, out=said.out, err=said.err)

    return run


@pytest.fixture
def refusal(run_program):
    """Runs a program that refuses: its one message, without "error: "."""

    def run(*arguments):
        done = run_program(*arguments)
        assert done.code not in (0, None)
        assert done.err.startswith("error: ")
        assert done.err.count("error: ") == 1
        assert "Traceback" not in done.err
        assert "\n\n" not in done.err
        return done.err.removeprefix("error: ").removesuffix("\n")

    return run


def said_by(*arguments):
    """What a program prints that succeeds, for fixtures of a whole session."""
    with contextlib.redirect_stdout(io.StringIO()) as out:
        assert main([str(argument) for argument in arguments]) == 0
    return out.getvalue()


@pytest.fixture(scope="session")
def teacher(tmp_path_factory):
    """A run of `train_teacher`: its folder, and what it printed."""
    folder = tmp_path_factory.mktemp("runs") / "teacher"
    said = said_by("train_teacher", f"--output={folder}", *QUICK, SMALL_TEACHER)
    return SimpleNamespace(folder=folder, said=said)


@pytest.fixture(scope="session")
def student(teacher):
    """A run of `train` with that teacher."""
    folder = teacher.folder.with_name("student")
    said = said_by(
        "train",
        f"--teacher={teacher.folder}/last.keras",
        f"--output={folder}",
        *QUICK,
        SMALL_STUDENT,
        "--set=seed=3",
    )
    return SimpleNamespace(folder=folder, said=said)


@pytest.fixture(scope="session")
def artifacts(student):
    """A run of `export` with that student."""
    folder = student.folder.parents[1] / "models" / "digits"
    said = said_by(
        "export",
        f"--model={student.folder}/last.keras",
        f"--output={folder}",
        "--num_images=40",
        "--notimed",
    )
    return SimpleNamespace(folder=folder, said=said)


@pytest.fixture(scope="session")
def micro_weights(tmp_path_factory):
    """Random weights of `deit_micro_patch4_32` with ten classes: the file."""
    keras.utils.set_random_seed(1)
    model = create_model("deit_micro_patch4_32", num_classes=10)
    for weight in model.trainable_weights:  # also biases, and heads of some size
        weight.assign(weight + 0.2 * keras.random.normal(weight.shape))
    path = tmp_path_factory.mktemp("weights") / "micro.safetensors"
    save_weights(model, path)
    return path


@pytest.fixture(scope="session")
def micro(micro_weights):
    """The flags of the model with those weights."""
    return (
        "--model=deit_micro_patch4_32",
        "--num_classes=10",
        f"--weights={micro_weights}",
    )


@pytest.fixture(scope="session")
def answering(tmp_path_factory):
    """`answering(*shares)`: a model that answers any image so, by each head: flags."""

    def flags(*shares):
        name = ("deit_micro_patch4_32", "deit_micro_distilled_patch4_32")[
            len(shares) - 1
        ]
        model = create_model(name, num_classes=len(shares[0]))
        for head, probabilities in zip(("class", "distillation"), shares, strict=False):
            kernel, bias = model.get_layer(f"{head}_head").weights
            kernel.assign(keras.ops.zeros_like(kernel))
            bias.assign(np.log(probabilities))
        path = tmp_path_factory.mktemp("weights") / "answer.safetensors"
        save_weights(model, path)
        size = f"--num_classes={len(shares[0])}"
        return (f"--model={name}", size, f"--weights={path}")

    return flags


@pytest.fixture
def names_of_imagenet(monkeypatch):
    """Names of ImageNet's classes that are not fetched."""
    names = tuple(f"animal {label}" for label in range(1000))
    monkeypatch.setattr("keras_deit.data.imagenet.imagenet_names", lambda: names)
    return names


@pytest.fixture
def pets(tmp_path):
    """A folder of ten cats and ten dogs."""
    random = np.random.default_rng(0)
    folder = tmp_path / "pets"
    for name in ("cat", "dog"):
        (folder / name).mkdir(parents=True)
        for index in range(10):
            pixels = random.integers(0, 256, (6, 5, 3), np.uint8)
            Image.fromarray(pixels).save(folder / name / f"{index}.png")
    return folder


def cells(text):
    """The rows of all printed tables, each a list of cells."""
    lines = text.replace("┃", "│").splitlines()
    return [
        [cell.strip() for cell in line.split("│")[1:-1]]
        for line in lines
        if "│" in line
    ]


@pytest.fixture(scope="session")
def rows_of():
    return cells
