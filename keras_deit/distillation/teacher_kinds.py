"""What stands behind a `Teacher`: a Keras model, a function, an ensemble."""

import json
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import keras
import numpy as np
import tensorflow as tf

from keras_deit._checks import check, check_choice
from keras_deit.data.source import digest_of
from keras_deit.distillation.cache_index import INDEX
from keras_deit.distillation.teacher_cache import TeacherCache
from keras_deit.models.factory import build_model
from keras_deit.models.inference import inference_model, model_output
from keras_deit.models.variants import VARIANTS
from keras_deit.weights.loader import load_weights
from keras_deit.weights.pretrained import pretrained_file

MEANS = ("logits", "probabilities")

# Options that have a meaning for some kinds of teachers only.
_OPTIONS = {
    "image_size": ("model", "variant", "SavedModel", "function"),
    "preprocess": ("model", "variant", "SavedModel", "function"),
    "classes": ("model", "variant", "SavedModel", "function", "ensemble"),
    "from_logits": ("model", "SavedModel", "function"),
    "weights": ("variant",),
    "num_classes": ("variant", "function"),
    "signature": ("SavedModel",),
    "shares": ("ensemble",),
    "mean": ("ensemble",),
    "as_numpy": ("function",),
    "version": ("model", "variant", "SavedModel", "function"),
}

# In the config of a network: where layers are named, and what changes no answer.
_CONNECTIONS = ("inbound_nodes", "input_layers", "output_layers")
_IDLE = (
    "name",
    "trainable",
    "registered_name",
    "build_config",
    "compile_config",
    "gradient_checkpointing",
)

Size = tuple[int | None, int | None]


@dataclass(frozen=True)
class Answerer:
    """Something that was asked for its opinion of pixels.

    Attributes:
        answer: Called with float32 pixels (B, H, W, 3) in [0, 255], and with whether it
            is in training mode, which means something to a Keras model only; returns
            (B, Y).
        num_classes: Y.
        image_size: Height and width that it takes; None where any will do.
        digest: Returns 64 hexadecimal digits of its weights and structure.
        model: The Keras model, if it is one.
    """

    answer: Callable
    num_classes: int
    image_size: Size
    digest: Callable[[], str]
    model: keras.Model | None = None


def kind_of(model) -> str:
    """What `model` is: one of the kinds that `_OPTIONS` names, or "cache".

    Raises:
        ValueError: If it is none of these.
    """
    if isinstance(model, keras.Model):
        return "model"
    if isinstance(model, TeacherCache):
        return "cache"
    if isinstance(model, list | tuple) and model:
        return "ensemble"
    if isinstance(model, str) and model in VARIANTS:
        return "variant"
    if isinstance(model, str | Path):
        path = Path(model)
        if (path / INDEX).is_file():
            return "cache"
        if (path / "saved_model.pb").is_file():
            return "SavedModel"
        rule = "A folder must be a SavedModel or a teacher cache to be a teacher."
        check(not path.is_dir(), rule, model=str(model))
        return "model"
    check(
        callable(model),
        "`model` must be a Keras model, the path of a .keras file, a variant, the "
        "folder of a SavedModel or of a teacher cache, a function, or a list of these.",
        model=model,
    )
    return "function"


def check_options(kind: str, given: Sequence[str]) -> None:
    """Refuses options that have no meaning for a kind of teacher."""
    for option in given:
        check(
            kind in _OPTIONS[option],
            f"`{option}` has no meaning for this kind of teacher, but for "
            f"{', '.join(_OPTIONS[option])}.",
            kind=kind,
        )


def of_keras_model(model: keras.Model, image_size: Size | None) -> Answerer:
    """A Keras classifier; at another size than its own it is built anew.

    Raises:
        ValueError: If it does not take RGB images, has no output of classes, or cannot
            be built for `image_size`.
    """
    if isinstance(model_output(model), dict):
        model = inference_model(model)
    output, image = model_output(model), tuple(model.inputs[0].shape)
    shape = getattr(output, "shape", ())
    check(
        len(shape) == 2 and shape[-1] is not None,
        "The teacher must have one output of shape (B, Y).",
        output=output,
    )
    check(
        len(image) == 4 and image[-1] == 3 and len(model.inputs) == 1,
        "The teacher must take RGB images, (B, height, width, 3), and nothing else.",
        input_shape=image,
        inputs=len(model.inputs),
    )
    if image_size not in (None, image[1:3]) and None not in image[1:3]:
        model = _at_size(model, image_size)
    return Answerer(
        lambda pixels, training: model(pixels, training=training),
        shape[-1],
        image_size or image[1:3],
        lambda: _digest(model),
        model,
    )


def _at_size(model: keras.Model, image_size: Size) -> keras.Model:
    """The same network, with a copy of its weights, for images of another size."""
    own = tuple(model.inputs[0].shape[1:3])
    try:
        image = keras.Input((*image_size, 3), name=model.inputs[0].name)
        twin = keras.models.clone_model(model, input_tensors=image)
        twin.set_weights(model.get_weights())
    except (ValueError, TypeError) as error:
        raise ValueError(
            "A teacher can be used at another size only if none of its weights depends "
            "on the size, as in a convolutional network. Received: "
            f"image_size={image_size}, teacher={own}, name={model.name!r}."
        ) from error
    return twin


def _digest(model: keras.Model) -> str:
    """Of the weights and of the network; not of names, on which Keras may count."""
    weights = [np.asarray(weight) for weight in model.get_weights()]
    config = _without_names(keras.saving.serialize_keras_object(model), {})
    text = json.dumps(
        [config, [w.shape for w in weights]], sort_keys=True, default=repr
    )
    return digest_of(text, *(weight.tobytes() for weight in weights))


def _without_names(config, places: dict):
    """A config in which layers are called after their places, and may be frozen."""
    if isinstance(config, list | tuple):
        return [_without_names(value, places) for value in config]
    if not isinstance(config, dict):
        return config
    layers = config.get("layers", ())
    if layers:  # of a network, perhaps inside another
        places = {x["config"]["name"]: f"layer {i}" for i, x in enumerate(layers)}
    found = {}
    for key, value in config.items():
        if key in _CONNECTIONS:
            found[key] = _renamed(value, places)
        elif key not in _IDLE:
            found[key] = _without_names(value, places)
    return found


def _renamed(connections, places: dict):
    if isinstance(connections, dict):
        return {key: _renamed(value, places) for key, value in connections.items()}
    if isinstance(connections, list | tuple):
        return [_renamed(value, places) for value in connections]
    return (
        places.get(connections, connections)
        if type(connections) is str
        else connections
    )


def ends_in_softmax(model: keras.Model) -> bool:
    """Whether a Keras model returns probabilities, as far as its last layer says."""
    last = model.layers[-1]
    return isinstance(last, keras.layers.Softmax) or (
        getattr(last, "activation", None) is keras.activations.softmax
    )


def of_variant(
    name: str, num_classes: int, image_size: Size | None, weights: str | Path | None
) -> Answerer:
    """A published network with all its weights.

    Raises:
        ValueError: If there is no such variant, or a weight is missing in the file.
        FileNotFoundError: If there is no such file of weights.
    """
    model = build_model(name, num_classes, image_size)
    path = pretrained_file(name) if weights in (None, "pretrained") else weights
    report = load_weights(model, path)
    check(
        not report.fresh,
        "A teacher needs all of its weights: give the `num_classes` of the file, and "
        "choose among them with `classes`.",
        fresh=report.fresh,
        num_classes=num_classes,
        path=str(path),
    )
    return of_keras_model(model, image_size)


def of_function(
    function: Callable, num_classes: int | None, as_numpy: bool
) -> Answerer:
    """A function of pixels, of tensors or of NumPy arrays.

    Raises:
        ValueError: If nobody says how many classes it has.
    """
    rule = "A function needs `num_classes`."
    check(num_classes is not None, rule, num_classes=num_classes)

    def answer(pixels, _):
        if not as_numpy:
            return function(pixels)
        logits = tf.numpy_function(
            lambda x: np.asarray(function(x), np.float32), [pixels], tf.float32
        )
        return tf.ensure_shape(logits, (None, num_classes))

    # Code has no digest; `Teacher.digest` asks for its version instead.
    return Answerer(answer, num_classes, (None, None), lambda: "function")


def of_ensemble(
    members: Sequence, shares: Sequence[float] | None, mean: str
) -> Answerer:
    """The weighted mean of several teachers, of logits or of probabilities.

    Raises:
        ValueError: If there are none, they differ in their classes, or the shares are
            no positive numbers, one for each.
    """
    check_choice("mean", mean, MEANS)
    check(
        all(member.cache is None for member in members),
        "The members of an ensemble must be there to be asked: cache the ensemble.",
        members=[member.kind for member in members],
    )
    classes = [member.num_classes for member in members]
    check(
        len(set(classes)) == 1,
        "The members of an ensemble must have the same classes.",
        classes=classes,
    )
    shares = [1.0] * len(members) if shares is None else list(shares)
    check(
        len(shares) == len(members) and all(0 < s < math.inf for s in shares),
        "`shares` must be one positive number for each member.",
        shares=shares,
        members=len(members),
    )
    shares = (np.array(shares) / np.sum(shares)).tolist()
    weights = np.array(shares, np.float32)[:, None, None]

    def answer(pixels, _):
        logits = tf.stack([member(pixels) for member in members])  # (members, B, Y)
        if mean == "logits":
            return tf.reduce_sum(weights * logits, axis=0)
        return log(tf.reduce_sum(weights * tf.nn.softmax(logits), axis=0))

    def digest():
        return digest_of(mean, repr(shares), *(member.digest for member in members))

    return Answerer(answer, classes[0], (None, None), digest)


def log(probabilities):
    """The logits of probabilities, finite."""
    return tf.math.log(tf.maximum(probabilities, keras.config.epsilon()))


def of_cache(cache: TeacherCache) -> Answerer:
    """What was said before, of which nobody can be asked again."""

    def refuse(pixels, _):
        raise ValueError(
            "A teacher cache cannot be asked about pixels: train on the batches that "
            f"`TeacherCache.join` returns. Received: cache={str(cache.path)!r}."
        )

    return Answerer(refuse, cache.num_classes, (None, None), lambda: cache.digest)
