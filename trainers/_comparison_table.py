"""What `compare` writes: a page in Markdown, made of the records of the runs."""

from collections.abc import Sequence
from dataclasses import dataclass

from keras_deit.training.callbacks import duration
from trainers._comparisons import BY_NAME, QUESTIONS, RUNS, Question

HEADING = "# Comparisons"
INTRODUCTION = """
What the documents that this project started from compare, computed by one command:
DeiT and EViT without and with a teacher; no, soft and hard distillation, without and
with the token, and which head answers; a CNN and a transformer as the teacher; T2T-ViT;
all of it together. The models are our own small ones, for images of 32 pixels on a CPU.
The command writes this page.

All students have the same seed, views, order of the images and number of epochs, and
the optimizer and learning rate of the recipe `cifar10_32_plain`; the CNN is the recipe
`cifar10_32_teacher`. Soft distillation has temperature 3 and weight 0.1, hard
distillation weight 0.5. EViT drops tokens from the first step on, and fuses them.
Scores are of the validation images, with the weights of the last epoch.

Each figure is of one short run with one seed. How much chance is in it was not
measured, so a small difference shows nothing."""
COLUMNS = (
    "Run",
    "Student",
    "Learns from",
    "Token",
    "Keep rate",
    "Parameters",
    "Million MACs",
    "Class",
    "Distillation",
    "Fused",
    "Agrees with the CNN",
    "Seconds",
)
EXPLANATION = """
Class, distillation, fused: top-1 of each head, in percent. Agrees with the CNN: share
of the validation images on which student (both heads fused) and CNN decide alike, in
percent, also for students that never met it. Million MACs: multiply-adds for an image.
Seconds: of the whole run, with building and evaluating, next to whatever else the
machine had to do. The sentences below the tables compare the fused heads, or the only
one of a run."""
PRINTED = "Slides: DeiT-Ti, ImageNet"


@dataclass(frozen=True)
class Record:
    """What a run came to.

    Attributes:
        parameters: Of the model.
        macs: Multiply-adds for an image.
        top1: Of each head, in [0, 1].
        agreement: With the teacher of a name, in [0, 1].
        attempts: Seconds of each time the run was started; None for one that was
            killed before it could say.
    """

    parameters: int
    macs: int
    top1: dict[str, float]
    agreement: dict[str, float]
    attempts: list[float | None]

    @property
    def head(self) -> str:
        """The head that answers."""
        return "fused" if "fused" in self.top1 else "class"

    @property
    def seconds(self) -> str:
        """How long it took, as far as is known."""
        known = [seconds for seconds in self.attempts if seconds is not None]
        text = f"{sum(known):,.0f}"
        if len(known) < len(self.attempts):
            text = f"more than {text}"
        goes = len(self.attempts)
        return text if goes == 1 else f"{text} in {goes} goes"


def page(records: dict[str, Record], facts: Sequence[str]) -> str:
    """Writes the page.

    Args:
        records: What is there, by the name of the run.
        facts: Lines about date, command, dataset and time.

    Returns:
        Markdown.
    """
    parts = [HEADING, INTRODUCTION.strip(), "\n".join(f"- {fact}" for fact in facts)]
    there = [run for run in RUNS if run.name in records]
    missing = [f"`{run.name}`" for run in RUNS if run.name not in records]
    if missing:
        parts.append(f"Not there yet: {', '.join(missing)}.")
    rows = [_cells(run, records[run.name]) for run in there]
    parts += ["## All runs", _table(COLUMNS, rows), EXPLANATION.strip()]
    for question in QUESTIONS:
        parts += _answer(question, records)
    return "\n\n".join(parts) + "\n"


def _cells(run, record: Record) -> tuple[str, ...]:
    learns = "labels"
    if run.teacher is not None:
        teacher = "CNN" if run.teacher == "cnn" else "DeiT"
        learns = f"labels, {run.kind}: {teacher}, {'live' if run.is_live else 'cached'}"
    scores = (_percent(record.top1.get(h)) for h in ("class", "distillation", "fused"))
    return (
        f"`{run.name}`",
        run.title,
        learns,
        "yes" if run.has_token else "",
        f"{run.keep_rate:g}" if run.keep_rate < 1 else "",
        f"{record.parameters:,}",
        _million(record.macs),
        *scores,
        _percent(record.agreement.get("cnn")),
        record.seconds,
    )


def _answer(question: Question, records: dict[str, Record]) -> list[str]:
    """Heading, table and sentence of a question; nothing without a run."""
    there = [name for name in question.runs if name in records]
    if not there:
        return []
    columns = ["Run", "Head", "Top-1", "Agrees with its teacher", "Million MACs"]
    columns += ["Seconds", *([PRINTED] if question.printed else [])]
    rows = []
    for name in there:
        record = records[name]
        agreement = record.agreement.get(BY_NAME[name].teacher)
        for head in record.top1 if question.all_heads else (record.head,):
            of_run = ("", "", "")
            if head == record.head:  # said once
                of_run = (_percent(agreement), _million(record.macs), record.seconds)
            top1 = _percent(record.top1[head])
            printed = (question.printed.get((name, head), ""),)
            cells = (f"`{name}`", head, top1, *of_run)
            rows.append(cells + (printed if question.printed else ()))
    parts = [f"## {question.title}", _table(columns, rows)]
    differences = [
        _difference(one, other, records)
        for one, other in question.pairs
        if {one, other} <= records.keys()
    ]
    if differences:
        parts.append(f"In points of top-1, {'; '.join(differences)}.")
    return parts


def _difference(one: str, other: str, records: dict[str, Record]) -> str:
    """How much one is better than the other, in the percentages that are shown."""
    first, second = (
        round(100 * record.top1[record.head], 2)
        for record in (records[one], records[other])
    )
    points = round(first - second, 2)
    if points == 0:
        return f"`{one}` is equal to `{other}`"
    side = "above" if points > 0 else "below"
    return f"`{one}` is {abs(points):.2f} {side} `{other}`"


def total_time(records: dict[str, Record], others: Sequence[float | None]) -> str:
    """The time of all runs and of what else was done, in words."""
    attempts = [s for record in records.values() for s in record.attempts]
    attempts += others
    known = sum(seconds for seconds in attempts if seconds is not None)
    return ("more than " if None in attempts else "") + duration(known)


def _percent(share: float | None) -> str:
    return "" if share is None else f"{100 * share:.2f}"


def _million(macs: int) -> str:
    return f"{macs / 1e6:.1f}"


def _table(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = (columns, ["---"] * len(columns), *rows)
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)
