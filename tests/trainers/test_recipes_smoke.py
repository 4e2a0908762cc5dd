import importlib
import json

import pytest

from trainers.__main__ import main
from trainers.recipes import list_recipes


@pytest.mark.slow
@pytest.mark.parametrize("name", list_recipes())
def test_a_recipe_runs_from_end_to_end_when_it_is_shrunk(name, tmp_path):
    doc = importlib.import_module(f"trainers.recipes.{name}").__doc__
    program = "train_teacher" if "trainers train_teacher" in doc else "train"
    output = tmp_path / "run"
    arguments = [program, f"--recipe={name}", "--smoke", f"--output={output}"]
    assert main(arguments) == 0
    result = json.loads((output / "result.json").read_text())
    assert result["epochs"] == 3
    recipe = json.loads((output / "recipe.json").read_text())
    has_average = recipe["ema_decay"] is not None
    assert ("average_scores" in result) == has_average
    names = {path.name for path in output.iterdir()}
    assert {"last.keras", "best.keras", "report.html"} <= names
    assert ("average.keras" in names) == has_average
    rows = [json.loads(x) for x in (output / "history.jsonl").read_text().splitlines()]
    assert ("distillation_loss" in rows[-1]) == (recipe["kind"] != "none")
    assert ("keep_rate" in rows[-1]) == ("evit" in name)
