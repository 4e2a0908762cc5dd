import pytest

from keras_deit.distillation.class_map import map_classes

ANIMALS = ("cat", "dog", "sea lion", "sun bear")


def test_names_find_their_index():
    assert map_classes(ANIMALS, 4, ["sun bear", "cat"]) == [3, 0]


def test_the_same_names_in_another_order_are_put_in_order():
    assert map_classes(["a", "b", "c"], 3, ["c", "a", "b"]) == [2, 0, 1]


def test_the_same_names_in_the_same_order_need_no_map():
    assert map_classes(ANIMALS, 4, list(ANIMALS)) is None


def test_the_first_of_more_classes_are_a_map():
    assert map_classes(ANIMALS, 4, ["cat", "dog"]) == [0, 1]


@pytest.mark.parametrize("name", ["Sea Lion", "sea_lion", "SEA-LION"])
def test_case_spaces_underscores_and_hyphens_do_not_matter(name):
    assert map_classes(ANIMALS, 4, [name, "dog"]) == [2, 1]


def test_the_same_name_goes_before_one_that_is_alike():
    teacher = ["sea_lion", "sea lion"]
    assert map_classes(teacher, 2, ["sea lion", "sea_lion"]) == [1, 0]
    assert map_classes(teacher, 2, ["sea lion"]) == [1]


@pytest.mark.parametrize(
    ("teacher", "student", "missing"),
    [
        (["Cat", "cat"], ["CAT"], ["CAT"]),  # which of the two?
        (["cat", "dog"], ["Cat", "CAT"], ["Cat", "CAT"]),  # both the same?
        (["cat", "dog"], ["cat", "CAT"], ["CAT"]),
        (["Cat", "CAT"], ["CAT", "cat"], ["cat"]),
        (["seal ion"], ["sea lion"], ["sea lion"]),
    ],
)
def test_refuses_what_is_alike_but_not_clear(teacher, student, missing):
    with pytest.raises(ValueError, match="must be one of the teacher's") as caught:
        map_classes(teacher, len(teacher), student)
    assert f"missing={missing!r}" in str(caught.value)


def test_says_how_many_match_what_is_missing_and_what_to_do():
    student = ["cat", *"123456"]
    with pytest.raises(ValueError) as caught:
        map_classes([*ANIMALS, "elk", "fox"], 6, student)
    assert str(caught.value) == (
        "Each class of the dataset must be one of the teacher's, but only 1 of 7 names "
        "match: give `teacher_classes`, for each class of the dataset the teacher's, "
        "by index or name. Received: missing=['1', '2', '3', '4', '5'], "
        "teacher=['cat', 'dog', 'sea lion', 'sun bear', 'elk']."
    )


def test_other_names_are_no_match_though_they_are_as_many():
    with pytest.raises(ValueError, match="only 0 of 2 names match"):
        map_classes(["a", "b"], 2, ["c", "d"])


def test_without_names_as_many_classes_are_the_same():
    assert map_classes(None, 3, ["a", "b", "c"]) is None


@pytest.mark.parametrize("count", [2, 4, 1000])
def test_refuses_another_number_without_names(count):
    message = f"give `teacher_classes`.* Received: teacher={count}, student=3"
    with pytest.raises(ValueError, match=f"not known, and their number .*{message}"):
        map_classes(None, count, ["a", "b", "c"])


@pytest.mark.parametrize("names", [None, ["a", "b", "c", "d"]])
def test_a_table_of_indices_wins_over_names(names):
    assert map_classes(names, 4, ["a", "b"], (3, 1)) == [3, 1]


def test_a_table_of_all_in_order_needs_no_map():
    assert map_classes(None, 2, ["a", "b"], [0, 1]) is None
    assert map_classes(None, 3, ["a", "b"], [0, 1]) == [0, 1]


def test_a_table_may_name_the_teachers_classes():
    assert map_classes(ANIMALS, 4, ["kitty", "b", "c"], ("cat", 3, "dog")) == [0, 3, 1]


@pytest.mark.parametrize("table", [[0], [0, 1, 2], []])
def test_refuses_a_table_of_another_length(table):
    message = f"one entry for each class .* entries={len(table)}, classes=2"
    with pytest.raises(ValueError, match=message):
        map_classes(None, 4, ["a", "b"], table)


@pytest.mark.parametrize("entry", [-1, 4, 1.0, True, "Cat", "fish", None])
def test_refuses_an_entry_that_the_teacher_lacks(entry):
    message = r"indices of the teacher's 4 classes.* wrong=.*, teacher=\['cat', 'dog'"
    with pytest.raises(ValueError, match=message) as caught:
        map_classes(ANIMALS, 4, ["a", "b"], (0, entry))
    assert f"wrong=[{entry!r}]" in str(caught.value)


def test_refuses_names_of_a_teacher_that_has_none():
    with pytest.raises(ValueError, match=r"wrong=\['cat'\], teacher=None"):
        map_classes(None, 4, ["a", "b"], ("cat", 1))


@pytest.mark.parametrize("table", [(2, 2), ("sea lion", 2), ("dog", "dog")])
def test_refuses_one_class_of_the_teacher_for_two(table):
    with pytest.raises(ValueError, match=r"another class .*twice=\[[12]\]"):
        map_classes(ANIMALS, 4, ["a", "b"], table)


@pytest.mark.parametrize("table", [None, ("a", 1)])
@pytest.mark.parametrize(
    ("side", "teacher", "student"),
    [("teacher", ["a", "b", "b"], ["a", "c"]), ("student", ["a", "b", "c"], ["b"] * 2)],
)
def test_refuses_a_name_that_is_there_twice(side, teacher, student, table):
    message = rf"Names of the {side}'s classes must differ, .*twice=\['b'\]"
    with pytest.raises(ValueError, match=message):
        map_classes(teacher, 3, student, table)


def test_indices_tell_names_apart_that_are_there_twice():
    assert map_classes(["b", "b"], 2, ["c", "c"], (1, 0)) == [1, 0]


def test_names_that_are_there_twice_have_no_order_to_go_by():
    with pytest.raises(ValueError, match="Names of the student's classes must differ"):
        map_classes(None, 2, ["a", "a"])


def test_refuses_another_number_of_names_than_of_classes():
    with pytest.raises(
        ValueError, match=r"one name for each class.*names=4, classes=5"
    ):
        map_classes(ANIMALS, 5, ["cat"], [0])
