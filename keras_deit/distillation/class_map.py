"""Which of the teacher's classes is which of the student's."""

from collections import Counter
from collections.abc import Sequence

from keras_deit._checks import check

_AS_SPACES = str.maketrans("_-", "  ")
_SHOWN = 5  # names in an error
_REMEDY = (
    "give `teacher_classes`, for each class of the dataset the teacher's, by index or "
    "name."
)


def map_classes(
    teacher_names: Sequence[str] | None,
    num_teacher_classes: int,
    student_names: Sequence[str],
    table: Sequence[int | str] | None = None,
) -> list[int] | None:
    """Finds the teacher's class for each class of the student.

    A table decides. Without one, names decide: the same name, or else the only one that
    is the same but for case and for spaces, underscores and hyphens. Without names, as
    many classes on both sides are taken to be the same in the same order.

    Args:
        teacher_names: Names of the teacher's classes, in its order; None if they are
            not known.
        num_teacher_classes: Number of the teacher's classes.
        student_names: Names of the student's classes, in its order.
        table: For each of the student's classes the teacher's, by index or name; None
            if there is no table.

    Returns:
        For each class of the student the index of the teacher's class, as `Teacher`
        takes it; None if all classes are the same in the same order.

    Raises:
        ValueError: If a class of the student has no class of the teacher, or perhaps
            several; or two classes have the same one.

    Example:
    >>> map_classes(["cat", "dog", "sea lion"], 3, ["Sea_Lion", "cat"])
    [2, 0]
    """
    check(
        teacher_names is None or len(teacher_names) == num_teacher_classes,
        "The teacher must have one name for each class.",
        names=len(teacher_names or ()),
        classes=num_teacher_classes,
    )
    by_index = table is not None and all(type(entry) is int for entry in table)
    if not by_index:
        _check_distinct("teacher", teacher_names or ())
        _check_distinct("student", student_names)
    if table is not None:
        indices = _from_table(table, teacher_names, num_teacher_classes, student_names)
    elif teacher_names is not None:
        indices = _from_names(teacher_names, student_names)
    else:
        check(
            len(student_names) == num_teacher_classes,
            "The names of the teacher's classes are not known, and their number is "
            f"another one: {_REMEDY}",
            teacher=num_teacher_classes,
            student=len(student_names),
        )
        return None
    return None if indices == list(range(num_teacher_classes)) else indices


def _check_distinct(side: str, names: Sequence[str]) -> None:
    twice = [name for name, count in Counter(names).items() if count > 1]
    rule = f"Names of the {side}'s classes must differ, or {_REMEDY}"
    check(not twice, rule, twice=twice[:_SHOWN])


def _from_table(
    table: Sequence[int | str],
    teacher_names: Sequence[str] | None,
    num_teacher_classes: int,
    student_names: Sequence[str],
) -> list[int]:
    check(
        len(table) == len(student_names),
        "`teacher_classes` must have one entry for each class of the dataset.",
        entries=len(table),
        classes=len(student_names),
    )
    known = {name: index for index, name in enumerate(teacher_names or ())}
    indices = [known.get(entry, entry) for entry in table]
    wrong = [
        entry
        for entry, index in zip(table, indices, strict=True)
        if not (type(index) is int and 0 <= index < num_teacher_classes)
    ]
    check(
        not wrong,
        f"`teacher_classes` must be indices of the teacher's {num_teacher_classes} "
        "classes, or their names, where these are known.",
        wrong=wrong[:_SHOWN],
        teacher=None if teacher_names is None else list(teacher_names[:_SHOWN]),
    )
    twice = [index for index, count in Counter(indices).items() if count > 1]
    check(
        not twice,
        "`teacher_classes` must have another class of the teacher for each class.",
        twice=twice[:_SHOWN],
    )
    return indices


def _from_names(
    teacher_names: Sequence[str], student_names: Sequence[str]
) -> list[int]:
    exact = {name: index for index, name in enumerate(teacher_names)}
    alike = Counter(map(_folded, student_names))
    folded = {}
    for index, name in enumerate(teacher_names):
        folded.setdefault(_folded(name), []).append(index)
    found = []
    for name in student_names:
        near = folded.get(_folded(name), [])
        only = near[0] if len(near) == alike[_folded(name)] == 1 else None
        found.append(exact.get(name, only))
    missing = [n for n, i in zip(student_names, found, strict=True) if i is None]
    check(
        not missing,
        f"Each class of the dataset must be one of the teacher's, but only "
        f"{len(student_names) - len(missing)} of {len(student_names)} names match: "
        f"{_REMEDY}",
        missing=missing[:_SHOWN],
        teacher=list(teacher_names[:_SHOWN]),
    )
    return found


def _folded(name: str) -> str:
    return name.casefold().translate(_AS_SPACES)
