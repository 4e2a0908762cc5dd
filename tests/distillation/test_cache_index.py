import json

import pytest

from keras_deit.distillation.cache_index import (
    FORMAT,
    INDEX,
    Shard,
    checked_header,
    codec_of,
    differences,
    fault_of_size,
    read_index,
    sha256_of,
    shard_bytes,
    shards_of,
    whole_epochs,
)

HEADER = {
    "views": {"seed": 0, "image_size": [8, 8], "mixup": 0.8, "engine": None},
    "dataset": "d" * 64,
    "teacher": {"digest": "e" * 64, "name": "regnety_160"},
    "keep_logits": 2,
    "temperature": 3.0,
    "class_names": ["cat", "dog", "owl"],
    "batch_size": 4,
    "steps_per_epoch": 5,
    "shard_steps": 2,
}
NAME = "epoch-00001-step-0000004.tfrecord"
ENTRY = {"epoch": 1, "first_step": 4, "steps": 1, "bytes": 64, "sha256": "0" * 64}


def folder_of(tmp_path, index):
    """A folder with this index: a dict, or text."""
    text = index if isinstance(index, str) else json.dumps(index)
    (tmp_path / INDEX).write_text(text)
    return tmp_path


def index_of(header=HEADER, **shards):
    return {"format": FORMAT, "header": header, "facts": {}, "shards": shards}


def test_the_shards_of_an_epoch_by_hand():
    # 5 steps in shards of at most 2.
    shards = list(shards_of(HEADER, 1))
    assert shards == [Shard(1, 0, 2), Shard(1, 2, 2), Shard(1, 4, 1)]
    assert shards[-1].name == NAME


def test_the_size_of_a_shard_by_hand():
    # A view: 2 logits of 2 bytes, 2 classes of 2, the rest of 2. A step: 4 views, the
    # fingerprint of 8 and the 16 of a TFRecord.
    assert codec_of(HEADER).bytes_per_view == 10
    assert shard_bytes(HEADER, Shard(0, 0, 2)) == 2 * (4 * 10 + 8 + 16)


def test_whole_epochs_end_where_a_shard_is_missing():
    names = [shard.name for epoch in range(3) for shard in shards_of(HEADER, epoch)]
    assert whole_epochs(HEADER, names) == 3
    assert whole_epochs(HEADER, set(names) - {NAME}) == 1
    assert whole_epochs(HEADER, names[1:]) == 0


def test_a_header_comes_back_as_json_has_it():
    views = {"image_size": (8, 8), "mixup": 0.1 + 0.2}
    header = checked_header(
        {**HEADER, "views": views, "class_names": ("cat", "dog", "owl")}
    )
    assert header["views"] == {"image_size": [8, 8], "mixup": 0.1 + 0.2}
    assert differences(header, {**HEADER, **header, "views": views}) == []


def test_every_difference_is_named():
    now = {
        **HEADER,
        "views": {"seed": 1, "image_size": [8, 9], "mixup": 0.8, "erasing": 0.25},
        "dataset": "f" * 64,
        "teacher": {"digest": "a" * 64, "name": "regnety_160"},
        "keep_logits": "all",
        "class_names": ["cat", "cow", "owl"],
    }
    assert differences(HEADER, now) == [
        "seed: 0 in the cache, 1 now",
        "image_size[1]: 8 in the cache, 9 now",
        "engine: None in the cache, nothing now",
        f"dataset: '{'d' * 64}' in the cache, '{'f' * 64}' now",
        f"teacher: '{'e' * 64}' in the cache, '{'a' * 64}' now",
        "keep_logits: 2 in the cache, 'all' now",
        "class_names[1]: 'dog' in the cache, 'cow' now",
        "erasing: nothing in the cache, 0.25 now",
    ]
    fewer = {**HEADER, "class_names": ["cat"]}
    assert differences(HEADER, fewer) == [
        "number of class_names: 3 in the cache, 1 now"
    ]


def test_a_field_of_the_views_may_be_called_as_one_of_the_header():
    views = {**HEADER["views"], "batch_size": 4}
    then = {**HEADER, "views": views}
    now = {**HEADER, "views": {**views, "batch_size": 8}}
    assert differences(then, now) == ["batch_size: 4 in the cache, 8 now"]
    assert differences(then, {**now, "batch_size": 8}) == [
        "batch_size: 4 in the cache, 8 now"
    ]


def test_the_name_of_the_teacher_is_no_difference():
    now = {**HEADER, "teacher": {"digest": "e" * 64, "name": "teacher.keras"}}
    assert differences(HEADER, now) == []


def test_a_file_of_another_size_is_told(tmp_path):
    path = tmp_path / "file"
    assert fault_of_size(path, 3) == "it is missing"
    path.write_bytes(b"abc")
    assert fault_of_size(path, 3) is None
    assert fault_of_size(path, 4) == "it has 3 bytes, not 4"
    assert sha256_of(path).startswith("ba7816bf8f01cfea414140de5dae2223")


def test_an_index_is_read(tmp_path):
    index = index_of(**{NAME: ENTRY})
    assert read_index(folder_of(tmp_path, index)) == index


@pytest.mark.parametrize(
    ("field", "value", "message"),
    [
        ("views", [1], "`views` must be a dict"),
        ("dataset", None, "`dataset` must be a string. Received: dataset=None"),
        ("teacher", "regnet", "`teacher` must be a dict with the strings 'digest' and"),
        ("teacher", {"digest": "e", "name": 1}, "`teacher` must be"),
        ("teacher", {"name": "e"}, "`teacher` must be"),
        ("keep_logits", "some", "`keep` must be"),
        ("keep_logits", 3, "less than the number of classes"),
        ("temperature", 0, "`temperature` must be"),
        ("class_names", [], "`class_names` must be a list of strings"),
        ("class_names", "cat", "`class_names` must be"),
        ("class_names", ["cat", 1, 2], "`class_names` must be"),
        ("batch_size", 0, "`batch_size` must be a whole number of at least 1"),
        ("batch_size", 1.5, "`batch_size` must be"),
        ("steps_per_epoch", "5", "`steps_per_epoch` must be"),
        ("steps_per_epoch", 2**31, "`steps_per_epoch` must be"),
        ("shard_steps", True, "`shard_steps` must be"),
    ],
)
def test_a_header_with_a_wrong_field_is_refused(tmp_path, field, value, message):
    header = {**HEADER, field: value}
    with pytest.raises(ValueError, match=message):
        checked_header(header)
    message = (
        f"index of the teacher cache '.*' is damaged; delete the folder.*{message}"
    )
    with pytest.raises(ValueError, match=message):
        read_index(folder_of(tmp_path, index_of(header)))


def test_a_header_with_other_fields_is_refused():
    for header in ({**HEADER, "seed": 0}, {"views": {}}, [], None):
        with pytest.raises(ValueError, match=r"The header must have the fields \['bat"):
            checked_header(header)
    with pytest.raises(ValueError, match="not JSON compliant"):
        checked_header({**HEADER, "views": {"mixup": float("nan")}})
    with pytest.raises(TypeError, match="not JSON serializable"):
        checked_header({**HEADER, "views": {"mixup": object()}})


@pytest.mark.parametrize(
    "text",
    [
        "",
        "no JSON",
        '{"format": 1, "header"',
        "[]",
        "null",
        '"index"',
        "{}",
        '{"format": "1"}',
        '{"format": true}',
        '{"format": 1.0}',
        '{"format": 0}',
        '{"format": 1}',
        '{"format": 1e999}',
        '{"format": ' + "9" * 5000 + "}",
        '{"format": 1, "header": {}}',
        "[" * 100_000,
        "\udcff\udcfe",
    ],
)
def test_a_damaged_index_is_refused(tmp_path, text):
    (tmp_path / INDEX).write_bytes(text.encode(errors="surrogateescape"))
    with pytest.raises(ValueError, match="index of the teacher cache '.*' is damaged"):
        read_index(tmp_path)


@pytest.mark.parametrize("field", ["facts", "shards"])
def test_an_index_without_its_parts_is_refused(tmp_path, field):
    index = {**index_of(), field: []}
    with pytest.raises(ValueError, match=rf"damaged.*`{field}` must be a dict.*\[\]"):
        read_index(folder_of(tmp_path, index))


@pytest.mark.parametrize(
    ("name", "changed", "message"),
    [
        ("../epoch-00001-step-0000004.tfrecord", {}, "must have that name"),
        ("/etc/passwd", {}, "must have that name"),
        ("x", {}, "must have that name"),
        (NAME, {"epoch": 2}, "must have that name"),
        (NAME, {"epoch": -1}, "must have an epoch and a first step of the header's"),
        (NAME, {"epoch": "../../x"}, "must have an epoch"),
        (NAME, {"epoch": 10**400}, "must have an epoch"),
        (NAME, {"epoch": None}, "must have an epoch"),
        (NAME, {"first_step": 1}, "must have an epoch"),
        (NAME, {"first_step": 6}, "must have an epoch"),
        (NAME, {"first_step": [4]}, "must have an epoch"),
        (NAME, {"steps": 2}, "'steps': 1.*steps=2"),
        (NAME, {"bytes": 63}, "'bytes': 64.*bytes=63"),
        (NAME, {"bytes": None}, "'bytes': 64"),
        (NAME, {"sha256": "0" * 63}, "must have a SHA-256 of 64 hex digits"),
        (NAME, {"sha256": "x" * 64}, "must have a SHA-256"),
        (NAME, {"sha256": 0}, "must have a SHA-256"),
    ],
)
def test_a_shard_that_cannot_be_is_refused(tmp_path, name, changed, message):
    index = index_of(**{name: {**ENTRY, **changed}})
    with pytest.raises(ValueError, match=f"is damaged.*{message}"):
        read_index(folder_of(tmp_path, index))


def test_a_shard_that_is_no_dict_is_refused(tmp_path):
    with pytest.raises(ValueError, match="is damaged.*must have an epoch"):
        read_index(folder_of(tmp_path, index_of(**{NAME: [1, 4]})))


def test_a_newer_format_is_refused(tmp_path):
    with pytest.raises(ValueError, match="at most 1: .* newer version .* format=2"):
        read_index(folder_of(tmp_path, {"format": FORMAT + 1, "new": "fields"}))


def test_a_folder_that_is_no_cache_is_refused(tmp_path):
    with pytest.raises(ValueError, match=r"teacher cache must have an 'index\.json'"):
        read_index(tmp_path)
    with pytest.raises(FileNotFoundError, match="There is no folder '.*gone'"):
        read_index(tmp_path / "gone")
