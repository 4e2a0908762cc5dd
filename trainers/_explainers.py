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
from keras_deit.data.bounded import OK
from keras_deit.data.geometry import evaluation_view, read_image
from keras_deit.models.explanation import explanation_model
from keras_deit.models.inference import input_size
from keras_deit.models.preprocessing import preprocessing_of

SIGNATURE = "explain"


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


def view_of_file(path: str, image_size: tuple[int, int], crop_ratio: float):
    """Reads an image file as a model sees it, uint8 (H, W, 3)."""
    return evaluation_view(read_image(path), image_size, crop_ratio).numpy()


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
    return lambda path: explain(view_of_file(path, size, crop_ratio))


def file_explainer_of_saved_model(
    folder: Path,
) -> tuple[Callable[[str], Explanation], list[str]]:
    """Makes a function that explains an image file; and names the classes.

    Args:
        folder: A SavedModel, as `export.saved_model(..., explain=True)` leaves it, or
            a folder of versions of it, of which the last counts.

    Raises:
        ValueError: If there is no SavedModel, or none with that signature.
    """
    folder = _last_version(folder)
    loaded = tf.saved_model.load(str(folder))
    check(
        SIGNATURE in loaded.signatures,
        "The SavedModel must have a signature `explain`: export it with --explain.",
        model=str(folder),
        signatures=sorted(loaded.signatures),
    )
    certificate = json.loads(existing_file(folder / "certificate.json").read_text())
    seen = certificate["preprocessing"]
    size, crop_ratio = tuple(seen["image_size"]), seen["crop_ratio"]
    labels = existing_file(folder / "assets" / "labels.txt").read_text().splitlines()

    def explain(path: str) -> Explanation:
        view = view_of_file(path, size, crop_ratio)
        data = tf.constant([Path(path).read_bytes()])
        # Not through `loaded` alone: it must live as long as its signature.
        outputs = loaded.signatures[SIGNATURE](image_bytes=data)
        status = outputs["status"].numpy()[0].decode()
        check(status == OK, "The SavedModel refuses the image.", path=path, why=status)
        return _of_one(view, outputs)

    return explain, labels


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
