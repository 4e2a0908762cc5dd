import sys

from keras_deit.training.progress import tracked


def test_the_steps_come_as_they_are_and_a_log_has_no_bar(capsys):
    assert list(tracked(range(3), "Working", 3)) == [0, 1, 2]
    assert list(tracked(iter("ab"), "Working", -1)) == ["a", "b"]
    said = capsys.readouterr()
    assert "Working" not in said.out + said.err


def test_a_terminal_has_a_bar_unless_it_is_not_wanted(capsys, monkeypatch):
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True, raising=False)
    monkeypatch.setenv("TERM", "xterm")
    assert list(tracked([7], "Working", 1, shown=False)) == [7]
    assert "Working" not in capsys.readouterr().err
    assert list(tracked([7], "Working", 1)) == [7]
    assert "Working" in capsys.readouterr().err
