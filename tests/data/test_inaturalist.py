import json

import pytest

from keras_deit.data.inaturalist import inaturalist, is_inaturalist
from tests.data.order_contract import hold_source_to_its_order, ids

CATEGORIES = [
    {"id": 7, "name": "Ursus arctos", "supercategory": "Mammals"},
    {"id": 3, "name": "Apis mellifera", "supercategory": "Insects"},
]


def content_of(*files, categories=CATEGORIES):
    """A list of (image id, category id, file name)."""
    return {
        "info": {"year": 2019},
        "images": [
            {"id": i, "file_name": name, "width": 5, "height": 6}
            for i, _, name in files
        ],
        "annotations": [
            {"id": i, "image_id": i, "category_id": category}
            for i, category, _ in files
        ],
        "categories": categories,
    }


@pytest.fixture
def official(tmp_path, write_images):
    """Bears 12, 10, 11 and bee 20 for training; bear 30 and bee 31 to validate."""
    bears, bees = "train_val2019/Mammals/7", "train_val2019/Insects/3"
    write_images(tmp_path / bears, 4)
    write_images(tmp_path / bees, 2)
    lists = {
        "train2019": content_of(
            (12, 7, f"{bears}/02.png"),
            (20, 3, f"{bees}/00.png"),
            (10, 7, f"{bears}/00.png"),
            (11, 7, f"{bears}/01.png"),
        ),
        "val2019": content_of((30, 7, f"{bears}/03.png"), (31, 3, f"{bees}/01.png")),
    }
    for name, content in lists.items():
        (tmp_path / f"{name}.json").write_text(json.dumps(content))
    return tmp_path


@pytest.fixture
def change(official):
    """`change(function)`: what the function does to the list of the training split."""

    def change(function):
        path = official / "train2019.json"
        content = json.loads(path.read_text())
        function(content)
        path.write_text(json.dumps(content))

    return change


def table(source):
    """Id, class and file of each image, in the natural order."""
    return [
        (int(e["id"]), source.class_names[int(e["label"])], path[-9:])
        for e, path in zip(source.in_order(), source.paths, strict=True)
    ]


def test_the_official_split_is_read_by_hand(official):
    train, validation = (inaturalist(official, s) for s in ("train", "validation"))
    assert train.class_names == ("Apis mellifera", "Ursus arctos")  # 3, then 7
    assert validation.class_names == train.class_names
    assert table(train) == [
        (10, "Ursus arctos", "/7/00.png"),
        (11, "Ursus arctos", "/7/01.png"),
        (12, "Ursus arctos", "/7/02.png"),
        (20, "Apis mellifera", "/3/00.png"),
    ]
    assert table(validation) == [
        (30, "Ursus arctos", "/7/03.png"),
        (31, "Apis mellifera", "/3/01.png"),
    ]
    assert train.name == str(official)
    assert train.digest != validation.digest
    assert {e["image"].shape for e in train.in_order()} == {(6, 5, 3)}


def test_its_order_can_be_entered_anywhere(official):
    hold_source_to_its_order(inaturalist(official, "train"), window=2)


def test_a_folder_is_recognized_by_both_lists_of_one_year(tmp_path):
    assert not is_inaturalist(tmp_path)
    (tmp_path / "train2018.json").touch()
    (tmp_path / "val2019.json").touch()
    (tmp_path / "train.json").touch()
    (tmp_path / "val.json").touch()
    assert not is_inaturalist(tmp_path)
    (tmp_path / "val2018.json").touch()
    assert is_inaturalist(tmp_path)


def test_lists_of_two_years_are_refused(official):
    for split in ("train", "val"):
        (official / f"{split}2018.json").touch()
    rule = r"must hold the lists of one year\. .*years=\['2018', '2019'\]"
    with pytest.raises(ValueError, match=rule):
        inaturalist(official, "train")


def test_all_images_are_refused(official):
    with pytest.raises(ValueError, match="'all' is for a folder without a second spl"):
        inaturalist(official, "all")


@pytest.mark.parametrize(
    ("rows", "names"),
    [
        ([("1", "a"), ("2", "b")], ("1", "2")),
        ([("x", "a"), ("x", "b")], ("a/x", "b/x")),
        ([("x", "a"), ("x", "a")], ("3", "7")),
        ([("x", None), ("y", None)], ("x", "y")),
        ([("x", None), ("x", None)], ("3", "7")),
    ],
)
def test_class_names_are_distinct(official, rows, names):
    for split in ("train", "val"):
        path = official / f"{split}2019.json"
        content = json.loads(path.read_text())
        content["categories"] = [
            {"id": i, "name": name, **({"supercategory": above} if above else {})}
            for i, (name, above) in zip((3, 7), rows, strict=True)
        ]
        path.write_text(json.dumps(content))
    assert inaturalist(official, "train").class_names == names


def test_unreadable_images_can_be_skipped(official, capsys):
    (official / "train_val2019/Mammals/7/01.png").write_text("hello")
    source = inaturalist(official, "train", "skip")
    assert ids(source.in_order()) == [10, 12, 20]
    assert "Left out 1 images that cannot be decoded: " in capsys.readouterr().err


@pytest.mark.parametrize("unreadable", ["refuse", "skip"])
def test_a_listed_file_that_is_missing_is_named(official, unreadable):
    (official / "train_val2019/Mammals/7/01.png").unlink()
    rule = r"Of the 4 images listed in .*/train2019\.json, 1 are missing: .*/7/01\.png$"
    with pytest.raises(FileNotFoundError, match=rule):
        inaturalist(official, "train", unreadable)


@pytest.mark.parametrize(
    "name",
    ["../secret.png", "/etc/passwd", "a/../../b.png", "..", "", "a\0.png"],
)
def test_a_file_outside_of_the_folder_is_refused(official, change, name):
    change(lambda content: content["images"][1].update(file_name=name))
    rule = r"must be of a file within the folder of the list\. .*file_name="
    with pytest.raises(ValueError, match=rule):
        inaturalist(official, "train")


def test_two_dots_within_a_name_are_no_way_out(official, change):
    path = official / "train_val2019/Mammals/7/02.png"
    path.rename(path.with_name("a..b.png"))
    name = "train_val2019/Mammals/7/a..b.png"
    change(lambda content: content["images"][0].update(file_name=name))
    assert inaturalist(official, "train").num_examples == 4


@pytest.mark.parametrize("text", ["", "{", "\xff", "[" * 100_000])
def test_what_is_no_json_is_refused(official, text):
    (official / "train2019.json").write_text(text, encoding="latin-1")
    with pytest.raises(ValueError, match=r"train2019\.json is not JSON: "):
        inaturalist(official, "train")


def test_a_list_must_be_an_object(official):
    (official / "val2019.json").write_text("[1]")
    with pytest.raises(ValueError, match=r"must be an object\. .*val2019\.json"):
        inaturalist(official, "train")


@pytest.mark.parametrize("name", ["images", "annotations", "categories"])
@pytest.mark.parametrize("rows", [None, [], {}, "rows"])
def test_each_table_must_be_there(official, change, name, rows):
    change(lambda content: content.update({name: rows}))
    rule = rf"`{name}` must be a list of one or more objects with `.*train2019\.json"
    with pytest.raises(ValueError, match=rule):
        inaturalist(official, "train")


@pytest.mark.parametrize(
    ("name", "key"),
    [
        ("images", "id"),
        ("images", "file_name"),
        ("annotations", "image_id"),
        ("annotations", "category_id"),
        ("categories", "id"),
        ("categories", "name"),
    ],
)
def test_each_row_must_have_its_keys(official, change, name, key):
    rule = rf"`{name}` must be a list .* objects with .*`{key}` \((int|str)\)"
    for wrong in (None, 1.5, True):
        change(lambda content, wrong=wrong: content[name][0].update({key: wrong}))
        with pytest.raises(ValueError, match=rule + r".*Received: file=.*row=\{"):
            inaturalist(official, "train")
    change(lambda content: content[name][0].pop(key))
    with pytest.raises(ValueError, match=rule):
        inaturalist(official, "train")
    change(lambda content: content[name].__setitem__(0, 5))
    with pytest.raises(ValueError, match=rule + r".*row=5"):
        inaturalist(official, "train")


@pytest.mark.parametrize("name", ["images", "categories"])
def test_ids_must_be_distinct_numbers_from_0_on(official, change, name):
    rule = rf"The ids of the {name} must be distinct and at least 0\. .*train2019\.json"
    for wrong in (-1, 2**63):
        change(lambda content, wrong=wrong: content[name][0].update(id=wrong))
        with pytest.raises(ValueError, match=rule):
            inaturalist(official, "train")
    change(lambda content: content[name][0].update(id=content[name][1]["id"]))
    with pytest.raises(ValueError, match=rule):
        inaturalist(official, "train")


@pytest.mark.parametrize("key", ["image_id", "category_id"])
def test_an_annotation_of_something_unknown_is_refused(official, change, key):
    change(lambda content: content["annotations"][0].update({key: 99}))
    rule = rf"of an image and a category of the list\. .*'{key}': 99"
    with pytest.raises(ValueError, match=rule):
        inaturalist(official, "train")


def test_an_image_has_one_annotation(official, change):
    rule = r"Each image must have one annotation\. .*images=\[12\]"
    change(lambda c: c["annotations"].append({"image_id": 12, "category_id": 3}))
    with pytest.raises(ValueError, match=rule):
        inaturalist(official, "train")
    others = [{"image_id": i, "category_id": 3} for i in (10, 11, 20)]
    change(lambda c: c.update(annotations=others))
    with pytest.raises(ValueError, match=rule):
        inaturalist(official, "train")


def test_both_lists_have_the_same_categories(official, change):
    change(lambda content: content["categories"].append({"id": 9, "name": "Vulpes"}))
    rule = r"`train2019\.json` and `val2019\.json` must have the same categories"
    with pytest.raises(ValueError, match=rule):
        inaturalist(official, "validation")
