import contextlib
import io
from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image

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
        "export", f"--model={student.folder}/last.keras", f"--output={folder}"
    )
    return SimpleNamespace(folder=folder, said=said)


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
