import pytest

from tests.examples.artifacts import served_model


@pytest.fixture(scope="session")
def version(tmp_path_factory):
    """The folder of version 1 of a small model, with a signature `keep_50`."""
    return served_model(tmp_path_factory.mktemp("models") / "animals")
