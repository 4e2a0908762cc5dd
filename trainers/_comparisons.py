"""The runs of `compare` as data, and the questions that they answer."""

from dataclasses import dataclass, field, replace
from pathlib import Path

from keras_deit._checks import check_choice
from keras_deit.training.recipe import Recipe
from trainers.recipes import find_recipe

DEIT, T2T, CNN = "deit_micro_patch4_32", "t2t_vit_micro_32", "regnety_micro_32"
STUDENT_RECIPE, TEACHER_RECIPE = "cifar10_32_plain", "cifar10_32_teacher"
CACHE = "teacher_cache"  # its folder, among those of the runs
EVIT_KEEP_RATE = 0.7
SMOKE_DEPTH = 2  # blocks of a student
KINDS = {  # as in the DeiT paper, section 5.2
    "none": {},
    "soft": {"kind": "soft", "alpha": 0.1, "temperature": 3.0},
    "hard": {"kind": "hard", "alpha": 0.5},
}


@dataclass(frozen=True)
class Run:
    """A training.

    Attributes:
        name: Of its folder.
        title: For people.
        variant: What is trained.
        kind: Of distillation; a key of `KINDS`.
        has_token: Whether there is a distillation token, hence three heads.
        keep_rate: Share of the tokens that EViT keeps, from the first step on.
        teacher: Name of the run that made the teacher.
        is_live: Whether the teacher is asked in every step, and not its cache.
    """

    name: str
    title: str
    variant: str = DEIT
    kind: str = "none"
    has_token: bool = False
    keep_rate: float = 1.0
    teacher: str | None = None
    is_live: bool = False

    @property
    def from_cache(self) -> bool:
        """Whether the run needs the cache."""
        return self.teacher is not None and not self.is_live


_CNN = {"teacher": "cnn"}
_HARD = {"kind": "hard", "has_token": True}
_EVIT = {"keep_rate": EVIT_KEEP_RATE}

# In an order in which each teacher stands before its students.
RUNS = (
    Run("cnn", "RegNetY, the CNN teacher", CNN),
    Run("deit", "DeiT"),
    Run("deit_soft", "DeiT", kind="soft", **_CNN),
    Run("deit_hard", "DeiT", kind="hard", **_CNN),
    Run("deit_token_soft", "DeiT", kind="soft", has_token=True, **_CNN),
    Run("deit_token_hard", "DeiT", **_HARD, **_CNN),
    Run("deit_token_hard_live", "DeiT", **_HARD, **_CNN, is_live=True),
    Run("deit_token_hard_from_deit", "DeiT", **_HARD, teacher="deit", is_live=True),
    Run("evit", "EViT", **_EVIT),
    Run("evit_token_hard", "EViT", **_EVIT, **_HARD, **_CNN),
    Run("t2t", "T2T-ViT", T2T),
    Run("t2t_token_hard", "T2T-ViT", T2T, **_HARD, **_CNN),
    Run("t2t_evit_token_hard", "T2T-ViT x EViT", T2T, **_EVIT, **_HARD, **_CNN),
)
BY_NAME = {run.name: run for run in RUNS}


def selected(names: list[str]) -> list[Run]:
    """The runs of these names and the teachers that they need, in order; [] is all.

    Raises:
        ValueError: If there is no such run.
    """
    for name in names:
        check_choice("only", name, list(BY_NAME))
    wanted = set(names or BY_NAME)
    wanted |= {BY_NAME[name].teacher for name in wanted}  # none of them has a teacher
    return [run for run in RUNS if run.name in wanted]


def recipes_of(
    output: Path, dataset: str, epochs: int | None = None, smoke: bool = False
) -> dict[str, Recipe]:
    """Makes the recipe of each run, by name.

    Seed, views and batches are those of the two recipes that everything starts from,
    hence the same for all students, and one cache serves all of them.

    Args:
        output: Folder of the runs.
        dataset: What all are trained on.
        epochs: Of each student; None takes the recipe's.
        smoke: Whether everything is shrunk to an epoch and two blocks.

    Raises:
        ValueError: If a value is refused.
    """
    student = replace(find_recipe(STUDENT_RECIPE), dataset=dataset)
    teacher = replace(find_recipe(TEACHER_RECIPE), dataset=dataset)
    if smoke:
        teacher, epochs = teacher.over(1), 1
    if epochs is not None:
        student = student.over(epochs)
    return {
        run.name: teacher
        if run.name == "cnn"
        else _of_student(run, student, output, smoke)
        for run in RUNS
    }


def _of_student(run: Run, base: Recipe, output: Path, smoke: bool) -> Recipe:
    overrides = {"depth": SMOKE_DEPTH} if smoke else {}
    if run.has_token:
        overrides["distilled"] = True
    if run.keep_rate < 1:
        overrides |= {"keep_rate": run.keep_rate, "fuse": True}
    taught = {}
    if run.from_cache:
        taught = {"teacher_cache": str(output / CACHE)}
    elif run.teacher is not None:
        taught = {"teacher": teacher_file(output, run.teacher)}
    return replace(
        base,
        variant=run.variant,
        model_overrides=overrides,
        **KINDS[run.kind],
        **taught,
    )


def teacher_file(output: Path, name: str) -> str:
    """The weights with which a run teaches: those of its last epoch."""
    return str(output / name / "last.keras")


@dataclass(frozen=True)
class Question:
    """A question of the documents, and the runs that answer it.

    Attributes:
        title: The question.
        runs: Names of the runs whose rows stand in its table.
        pairs: Which of them are compared in a sentence: by their fused heads, or by the
            only one they have.
        all_heads: Whether each head has a row.
        printed: What the slides print for a run and head.
    """

    title: str
    runs: tuple[str, ...]
    pairs: tuple[tuple[str, str], ...]
    all_heads: bool = False
    printed: dict[tuple[str, str], str] = field(default_factory=dict)


QUESTIONS = (
    Question(
        "DeiT and EViT, without and with the teacher",
        ("deit", "deit_token_hard", "evit", "evit_token_hard"),
        (
            ("deit_token_hard", "deit"),
            ("evit_token_hard", "evit"),
            ("evit", "deit"),
            ("evit_token_hard", "deit_token_hard"),
        ),
    ),
    Question(
        "None, soft or hard; without and with the token; which head",
        ("deit", "deit_soft", "deit_hard", "deit_token_soft", "deit_token_hard"),
        (
            ("deit_soft", "deit"),
            ("deit_hard", "deit"),
            ("deit_token_soft", "deit_soft"),
            ("deit_token_hard", "deit_hard"),
            ("deit_token_hard", "deit_token_soft"),
        ),
        all_heads=True,
        printed={
            ("deit", "class"): "72.2",
            ("deit_soft", "class"): "72.2",
            ("deit_hard", "class"): "74.3",
            ("deit_token_hard", "class"): "73.9",
            ("deit_token_hard", "distillation"): "74.6",
            ("deit_token_hard", "fused"): "74.5",
        },
    ),
    Question(
        "A CNN or a transformer as the teacher",
        ("cnn", "deit_token_hard", "deit", "deit_token_hard_from_deit"),
        (
            ("cnn", "deit"),
            ("deit_token_hard", "deit_token_hard_from_deit"),
            ("deit_token_hard_from_deit", "deit"),
        ),
    ),
    Question(
        "The teacher live, or asked beforehand",
        ("deit_token_hard_live", "deit_token_hard"),
        (("deit_token_hard", "deit_token_hard_live"),),
        all_heads=True,
    ),
    Question(
        "T2T-ViT",
        ("deit", "t2t", "deit_token_hard", "t2t_token_hard"),
        (
            ("t2t", "deit"),
            ("t2t_token_hard", "deit_token_hard"),
            ("t2t_token_hard", "t2t"),
        ),
    ),
    Question(
        "All three: T2T-ViT, dropped tokens and the distillation token",
        ("evit_token_hard", "t2t_token_hard", "t2t_evit_token_hard"),
        (
            ("t2t_evit_token_hard", "t2t_token_hard"),
            ("t2t_evit_token_hard", "evit_token_hard"),
        ),
    ),
)
