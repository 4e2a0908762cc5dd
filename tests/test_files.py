import pytest

from keras_deit._files import existing_file, replacing, unfinished


def test_what_is_moved_out_stays_and_the_rest_is_gone(tmp_path):
    folder = tmp_path / "models" / "digits"
    with unfinished(folder) as workshop:
        assert workshop.parent == folder
        assert workshop.name.startswith(".")
        (workshop / "model").mkdir()
        (workshop / "model" / "weights").write_text("1")
        (workshop / "notes").write_text("2")
        (workshop / "model").rename(folder / "model")
    assert [path.name for path in folder.iterdir()] == ["model"]
    assert (folder / "model" / "weights").read_text() == "1"


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt])
def test_after_a_failure_nothing_is_left_not_even_the_parents(tmp_path, error):
    with (
        pytest.raises(error),
        unfinished(tmp_path / "models" / "digits") as workshop,
    ):
        (workshop / "deep").mkdir()
        (workshop / "deep" / "weights").write_text("1")
        raise error
    assert list(tmp_path.iterdir()) == []


def test_after_a_failure_what_was_there_stays(tmp_path):
    (tmp_path / "models").mkdir()
    (tmp_path / "models" / "old").write_text("1")
    for folder in (tmp_path / "models", tmp_path / "models" / "new"):
        with pytest.raises(ValueError, match="no good"), unfinished(folder):
            raise ValueError("no good")
        assert [path.name for path in (tmp_path / "models").iterdir()] == ["old"]
    assert (tmp_path / "models" / "old").read_text() == "1"


def test_two_may_work_in_one_folder(tmp_path):
    with unfinished(tmp_path) as one, unfinished(tmp_path) as other:
        assert one != other
    assert list(tmp_path.iterdir()) == []


def test_the_folder_may_be_relative(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    folder = type(tmp_path)("models") / "digits"
    with pytest.raises(ValueError, match="no good"), unfinished(folder):
        raise ValueError("no good")
    assert list(tmp_path.iterdir()) == []


def test_a_folder_that_cannot_be_made_is_refused(tmp_path):
    (tmp_path / "file").write_text("1")
    for folder in (tmp_path / "file", tmp_path / "file" / "models"):
        with pytest.raises(OSError, match="file"), unfinished(folder):
            pass
    assert (tmp_path / "file").read_text() == "1"


def test_a_file_is_replaced_once_it_is_whole(tmp_path):
    path = tmp_path / "weights.h5"
    path.write_text("old")
    with replacing(path) as partial:
        assert partial.suffix == ".h5"
        partial.write_text("new")
        assert path.read_text() == "old"
    assert path.read_text() == "new"
    with pytest.raises(ValueError, match="no good"), replacing(path) as partial:
        partial.write_text("half")
        raise ValueError("no good")
    assert path.read_text() == "new"
    assert [file.name for file in tmp_path.iterdir()] == ["weights.h5"]


def test_a_file_that_must_be_there_is_named_when_it_is_not(tmp_path):
    (tmp_path / "weights").write_text("1")
    assert existing_file(str(tmp_path / "weights")) == tmp_path / "weights"
    with pytest.raises(FileNotFoundError, match=r"There is no file '.*/gone'\."):
        existing_file(tmp_path / "gone")
    with pytest.raises(
        IsADirectoryError, match=f"'{tmp_path}' is a folder, not a file"
    ):
        existing_file(tmp_path)
