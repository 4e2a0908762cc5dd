from pathlib import Path


def test_the_page_of_a_run_lies_in_its_folder(run_program, student):
    done = run_program("report", student.folder)
    path = student.folder / "report.html"
    assert (done.code, done.err) == (0, "")
    assert done.out.splitlines()[-1] == f"Saved {path}"
    assert "<h1>student</h1>" in path.read_text()
    assert run_program("report", student.folder).code == 0  # replaces its own


def test_the_page_of_several_runs_lies_in_the_current_folder(
    run_program, student, teacher, tmp_path, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    done = run_program("report", teacher.folder, student.folder)
    assert (done.code, done.err) == (0, "")
    assert done.out.splitlines()[-1] == "Saved report.html"
    assert "teacher, student" in Path("report.html").read_text()


def test_the_page_lies_where_it_is_wanted(run_program, student, tmp_path):
    path = tmp_path / "pages" / "a.html"
    done = run_program("report", student.folder, f"--output={path}")
    assert (done.code, done.err) == (0, "")
    assert path.is_file()
    assert done.out.splitlines()[-1] == f"Saved {path}"


def test_bad_input_ends_in_one_message(refusal, student, tmp_path):
    assert refusal("report").startswith("Give at least one folder of a run.")
    message = refusal("report", tmp_path)
    assert message.startswith("A run must be a folder with a recipe.json.")
    assert list(tmp_path.iterdir()) == []
    message = refusal("report", student.folder, student.folder)
    assert message.startswith("Give at least one run, and each once.")
    model = student.folder / "last.keras"
    before = model.read_bytes()
    message = refusal("report", student.folder, f"--output={model}")
    assert message.startswith("Only an earlier report is replaced")
    assert model.read_bytes() == before
