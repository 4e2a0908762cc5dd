import os
from html.parser import HTMLParser
from pathlib import Path

import pytest

from keras_deit.training.report_page import write_report
from tests.training.report_runs import DISTILLED, Page, make_run


@pytest.fixture
def runs(tmp_path):
    return [
        make_run(tmp_path / "plain"),
        make_run(tmp_path / "distilled", DISTILLED, kind="hard"),
        make_run(tmp_path / "bare", None, None, None, None),
    ]


@pytest.mark.parametrize("count", [1, 2, 3])
def test_one_run_has_a_page_and_several_have_one_together(tmp_path, runs, count):
    path = tmp_path / "report.html"
    write_report(runs[:count], path)
    page = Page(path.read_text())
    title = "plain" if count == 1 else f"{count} runs side by side"
    assert page.headings[0] == (1, title)
    assert title.split()[0] in page.text
    levels = [level for level, _ in page.headings]
    steps = [b - a for a, b in zip(levels, levels[1:], strict=False)]
    assert max(steps) <= 1  # no level is left out


@pytest.mark.parametrize("count", [1, 3])
def test_a_page_loads_nothing_from_anywhere(tmp_path, runs, count):
    path = tmp_path / "report.html"
    write_report(runs[:count], path)
    loaded = []

    class Links(HTMLParser):
        def handle_starttag(self, name, attributes):
            assert name not in ("script", "link", "iframe", "object", "embed", "base")
            for key, value in attributes:
                assert not key.startswith("on")
                assert "url(" not in value
                if key in ("src", "href", "srcset", "xlink:href", "action", "data"):
                    loaded.append(value)

    text = path.read_text()
    Links().feed(text)
    assert len(loaded) == (1 if count == 1 else 0)
    assert all(value.startswith(("data:", "#")) for value in loaded)
    assert "://" not in text
    assert text.count("http") == text.count("http-equiv") == 1


def test_the_same_folders_give_the_same_bytes(tmp_path, runs):
    paths = [tmp_path / "a.html", tmp_path / "b.html"]
    for path in paths:
        write_report(runs[:1], path)
    assert paths[0].read_bytes() == paths[1].read_bytes()


def test_runs_of_one_name_are_told_apart(tmp_path, runs):
    other = make_run(tmp_path / "other" / "plain")
    write_report([runs[0], other], tmp_path / "report.html")
    page = Page((tmp_path / "report.html").read_text())
    assert f"{tmp_path.name}/plain, other/plain" in page.text


def test_a_run_may_be_the_current_folder(tmp_path, runs, monkeypatch):
    monkeypatch.chdir(runs[0])
    write_report(["."], "report.html")
    assert Page(Path("report.html").read_text()).headings[0] == (1, "plain")


def test_an_earlier_report_is_replaced_and_leaves_nothing_behind(tmp_path, runs):
    path = tmp_path / "new" / "folder" / "report.html"
    for run in runs[:2]:
        write_report([run], path)
        assert f"<h1>{run.name}</h1>" in path.read_text()
        assert [p.name for p in path.parent.iterdir()] == ["report.html"]


def test_anything_else_is_not_replaced(tmp_path, runs):
    rule = "Only an earlier report is replaced: choose another file. Received: path="
    page = tmp_path / "page.html"
    page.write_text("<!DOCTYPE html>\n<title>Mine</title>")
    text = tmp_path / "notes.txt"
    text.write_text("keras_deit report")
    link = tmp_path / "link.html"
    link.symlink_to(tmp_path / "gone")
    for path in (page, text, link, tmp_path, runs[0] / "recipe.json"):
        before = path.read_bytes() if path.is_file() else None
        with pytest.raises(ValueError, match=rule):
            write_report(runs[:1], path)
        assert before == (path.read_bytes() if path.is_file() else None)


def test_no_run_or_a_run_twice_is_refused(tmp_path, runs):
    path = tmp_path / "report.html"
    for given in ([], [runs[0], tmp_path / "other" / ".." / "plain"]):
        (tmp_path / "other").mkdir(exist_ok=True)
        with pytest.raises(ValueError, match="at least one run, and each once. Rec"):
            write_report(given, path)
    with pytest.raises(ValueError, match="must be a folder with a recipe.json"):
        write_report([runs[0], tmp_path / "other"], path)
    with pytest.raises(FileNotFoundError, match="There is no folder"):
        write_report([tmp_path / "gone"], path)
    assert not path.exists()


def test_a_page_that_cannot_be_written_leaves_the_earlier_one(
    tmp_path, runs, monkeypatch
):
    path = tmp_path / "report.html"
    write_report(runs[:1], path)
    before = path.read_bytes()

    def full(*_, **__):
        raise OSError("No space left on device")

    monkeypatch.setattr(Path, "write_text", full)
    with pytest.raises(OSError, match="No space"):
        write_report(runs[:2], path)
    assert path.read_bytes() == before
    assert [p.name for p in tmp_path.iterdir() if p.name.startswith(".")] == []


def test_a_folder_whose_name_is_no_text_has_a_page(tmp_path):
    folder = make_run(Path(os.fsdecode(os.fsencode(tmp_path) + b"/run\xff")))
    write_report([folder], tmp_path / "report.html")
    page = Page((tmp_path / "report.html").read_text())
    assert page.headings[0] == (1, "run\\udcff")
