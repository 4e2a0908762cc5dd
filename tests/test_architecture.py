import ast
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
FLOORS = [
    {"_checks", "_files", "version"},
    {"layers"},
    {"models"},
    {"weights"},
    {"data"},
    {"distillation"},
    {"training"},
    {"export"},
]
FREE_OF_TENSORFLOW = {"_checks", "_files", "version", "layers", "models", "weights"}
OPTIONAL = {"tensorflow_datasets", "keras_cv", "matplotlib", "sklearn"}

# The package's own `__init__` is its front door: it opens every room.
FILES = sorted(
    path.relative_to(ROOT)
    for path in ROOT.glob("keras_deit/**/*.py")
    if path != ROOT / "keras_deit" / "__init__.py"
)
MIRRORED = [path for path in FILES if path.name not in ("__init__.py", "version.py")]


def imported_names(node: ast.AST, inside_functions: bool = True) -> set[str]:
    """Full dotted names of what is imported, `from a import b` being "a.b"."""
    functions = (ast.FunctionDef, ast.AsyncFunctionDef, ast.Lambda)
    if isinstance(node, functions) and not inside_functions:
        return set()
    names = set()
    if isinstance(node, ast.Import):
        names = {alias.name for alias in node.names}
    elif isinstance(node, ast.ImportFrom):
        names = {f"{node.module}.{alias.name}" for alias in node.names}
        names = {"keras_deit"} if node.level else names
    for child in ast.iter_child_nodes(node):
        names |= imported_names(child, inside_functions)
    return names


def rooms(names: set[str]) -> set[str]:
    """Rooms of the library; a relative import, or one of all of it, is room ""."""
    parts = [name.split(".") for name in names]
    return {(*p, "")[1] for p in parts if p[0] == "keras_deit"}


def packages(names: set[str]) -> set[str]:
    return {name.split(".")[0] for name in names}


def room_of(path: Path) -> str:
    return path.with_suffix("").parts[1]


def parse(path: Path) -> ast.AST:
    return ast.parse((ROOT / path).read_text())


@pytest.mark.parametrize(
    "source",
    [
        "import keras_deit.training.schedules",
        "import keras_deit.training as t",
        "from keras_deit.training.schedules import cosine",
        "from keras_deit import training",
        "def f():\n    from keras_deit.training import cosine",
    ],
)
def test_sees_every_form_of_an_import(source):
    assert rooms(imported_names(ast.parse(source))) == {"training"}


@pytest.mark.parametrize(
    "source", ["import keras_deit", "from . import training", "from .training import t"]
)
def test_sees_that_an_import_names_no_room(source):
    assert rooms(imported_names(ast.parse(source))) == {""}


def test_tells_imports_of_the_module_from_those_of_its_functions():
    tree = ast.parse("try:\n  import a\nfinally:\n  0\ndef f():\n  import b")
    assert imported_names(tree) == {"a", "b"}
    assert imported_names(tree, inside_functions=False) == {"a"}


@pytest.mark.parametrize("path", FILES, ids=str)
def test_imports_no_later_room(path):
    own_floor = next(i for i, floor in enumerate(FLOORS) if room_of(path) in floor)
    allowed = set().union(*FLOORS[: own_floor + 1])
    assert rooms(imported_names(parse(path))) <= allowed


def test_nothing_imports_the_trainers():
    sources = [*FILES, Path("keras_deit/__init__.py")]
    users = [p for p in sources if "trainers" in packages(imported_names(parse(p)))]
    assert users == []


@pytest.mark.parametrize("path", FILES, ids=str)
def test_imports_no_optional_package_before_it_is_needed(path):
    at_import = packages(imported_names(parse(path), inside_functions=False))
    assert not at_import & OPTIONAL


@pytest.mark.parametrize(
    "path", [path for path in FILES if room_of(path) in FREE_OF_TENSORFLOW], ids=str
)
def test_models_need_only_keras_and_numpy(path):
    assert not packages(imported_names(parse(path))) & {"tensorflow", *OPTIONAL}


@pytest.mark.parametrize("path", MIRRORED, ids=str)
def test_each_library_file_has_its_test_file(path):
    name = f"test_{path.name.removeprefix('_')}"
    assert (ROOT / "tests" / path.relative_to("keras_deit").with_name(name)).is_file()


def test_imports_where_nothing_optional_is_installed():
    # What is None in `sys.modules` cannot be imported.
    code = f"""
import sys
sys.modules.update(dict.fromkeys({sorted(OPTIONAL | {"pandas"})}))
import keras_deit
"""
    process = subprocess.run(
        [sys.executable, "-c", code],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
    )
    assert process.returncode == 0, process.stderr
