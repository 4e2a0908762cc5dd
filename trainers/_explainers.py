"""Who explains a picture: a Keras model, or a SavedModel with that signature."""

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import keras
import numpy as np
import tensorflow as tf

from keras_deit._checks import check
from keras_deit._files import existing_file
from keras_deit.data.bounded import OK, bounded_views
from keras_deit.data.geometry import evaluation_view, read_image
from keras_deit.export.serving import LABELS
from keras_deit.export.signatures import EXPLAIN
from keras_deit.models.explanation import explanation_model
from keras_deit.models.inference import input_size
from keras_deit.models.preprocessing import preprocessing_of


@dataclass(frozen=True)
class Explanation:
    """What `explanation_model` says of one picture.

    Attributes:
        view: What the model saw, uint8, shape (H, W, 3).
        logits: Shape (Y,).
        attention: Shape (depth, P, rows, columns).
        rollout: Shape (P, rows, columns).
        kept: Bool, shape (stages, rows, columns); no stages where none is dropped.
    """

    view: np.ndarray
    logits: np.ndarray
    attention: np.ndarray
    rollout: np.ndarray
    kept: np.ndarray


def explainer_of_model(model: keras.Model) -> Callable[[np.ndarray], Explanation]:
    """Makes a function that explains a view, uint8 (H, W, 3)."""
    explanation = explanation_model(model)
    run = tf.function(lambda x: explanation(x, training=False), autograph=False)
    return lambda view: _of_one(view, run(tf.cast(view[None], tf.float32)))


def file_explainer_of_model(
    model: keras.Model, explain: Callable[[np.ndarray], Explanation]
) -> Callable[[str], Explanation]:
    """Makes a function that explains an image file, of one that explains its view."""
    size, crop_ratio = input_size(model), preprocessing_of(model).crop_ratio
    return lambda path: explain(
        evaluation_view(read_image(path), size, crop_ratio).numpy()
    )


class SavedModelExplainer:
    """Explains image files by the signature of a SavedModel.

    Args:
        folder: A SavedModel, as `export.saved_model(..., explain=True)` leaves it, or
            a folder of versions of it, of which the last counts.

    Attributes:
        names: Name of each class.

    Raises:
        ValueError: If there is no SavedModel, or none with that signature.
    """

    def __init__(self, folder: Path):
        folder = _last_version(folder)
        # It must live as long as its signature.
        self._loaded = tf.saved_model.load(str(folder))
        check(
            EXPLAIN in self._loaded.signatures,
            f"The SavedModel must have a signature `{EXPLAIN}`: export it with "
            "--explain.",
            model=str(folder),
            signatures=sorted(self._loaded.signatures),
        )
        certificate = json.loads(existing_file(folder / "certificate.json").read_text())
        seen = certificate["preprocessing"]
        size, crop_ratio = tuple(seen["image_size"]), seen["crop_ratio"]
        bounds = ("max_bytes", "max_pixels")
        bounds = {name: certificate[name] for name in bounds if name in certificate}
        self._views = tf.function(
            lambda files: bounded_views(files, size, crop_ratio, **bounds),
            input_signature=[tf.TensorSpec((None,), tf.string)],
            autograph=False,
        )
        labels = existing_file(folder / "assets" / LABELS).read_text()
        self.names = labels.splitlines()

    def view(self, path: str) -> np.ndarray:
        """Reads an image file as the signature does, uint8 (H, W, 3).

        Raises:
            FileNotFoundError: If there is no such file.
            ValueError: If the signature does not take it.
        """
        data = existing_file(path).read_bytes()
        views, statuses = self._views(tf.constant([data]))
        _check_taken(path, statuses[0])
        return views[0].numpy()

    def explain(self, path: str) -> Explanation:
        """Explains an image file.

        Raises:
            FileNotFoundError: If there is no such file.
            ValueError: If the signature does not take it.
        """
        view, data = self.view(path), existing_file(path).read_bytes()
        explain = self._loaded.signatures[EXPLAIN]
        outputs = explain(image_bytes=tf.constant([data]))
        _check_taken(path, outputs["status"][0])
        return _of_one(view, outputs)


def _check_taken(path: str, status) -> None:
    why = status.numpy().decode()
    check(why == OK, "The SavedModel refuses the image.", path=path, why=why)


def _last_version(folder: Path) -> Path:
    versions = [p for p in folder.iterdir() if p.name.isdecimal()]
    if versions and not (folder / "saved_model.pb").is_file():
        folder = max(versions, key=lambda path: int(path.name))
    rule = "`--model` must be a folder with a SavedModel, or with versions of one."
    check((folder / "saved_model.pb").is_file(), rule, model=str(folder))
    return folder


def _of_one(view: np.ndarray, outputs: dict) -> Explanation:
    """Takes the one picture out of its batch."""
    one = {name: x.numpy()[0] for name, x in outputs.items()}
    kept = one.get("kept", np.zeros((0, *one["rollout"].shape[1:]), bool))
    return Explanation(view, one["logits"], one["attention"], one["rollout"], kept)
