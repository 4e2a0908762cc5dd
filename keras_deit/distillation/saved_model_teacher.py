"""A SavedModel behind a `Teacher`, of whatever version of TensorFlow."""

from pathlib import Path
from tempfile import TemporaryDirectory

import tensorflow as tf
from tensorflow.core.protobuf import saved_model_pb2

from keras_deit._checks import check
from keras_deit.data.source import digest_of
from keras_deit.distillation.teacher_kinds import Answerer

# Signatures that are taken unless one is named: TF Serving's own, and ours for pixels.
USUAL = ("serving_default", "pixels")


def of_saved_model(
    path: Path, signature: str | None, image_size: tuple[int, int] | None
) -> Answerer:
    """A SavedModel, of whatever version of TensorFlow.

    Raises:
        ValueError: If no signature, or more than one, takes RGB images and returns
            classes; if it takes another size; or in the scope of a strategy.
    """
    check(
        not tf.distribute.has_strategy(),
        "A SavedModel must be loaded outside of a strategy's scope.",
        path=str(path),
    )
    try:
        loaded = _load(path)
    except (OSError, ValueError, AttributeError, tf.errors.OpError) as error:
        raise ValueError(
            f"{str(path)!r} holds no SavedModel: {str(error)[:500]}"
        ) from error
    signatures = dict(loaded.signatures)
    able = {n: s for n, f in signatures.items() if (s := _image_signature(f))}
    if signature is None and len(able) == 1:
        (signature,) = able
    if signature is None:
        signature = next((name for name in USUAL if name in able), None)
    check(
        signature in able,
        "A SavedModel needs a signature from RGB images (B, height, width, 3) to "
        f"'logits' or one output (B, Y); name it. Those that do: {sorted(able)}.",
        signature=signature,
        signatures=sorted(signatures),
        path=str(path),
    )
    source, target = able[signature]
    own = tuple(source.shape[1:3])
    check(
        image_size is None or None in own or image_size == own,
        "A SavedModel can be used at its own size only.",
        image_size=image_size,
        teacher=own,
        signature=signature,
    )
    function = signatures[signature]

    def answer(pixels, _):
        if source.dtype.is_integer:
            pixels = tf.clip_by_value(tf.round(pixels), 0, 255)
        pixels = tf.cast(pixels, source.dtype)
        return function(**{source.name: pixels})[target]

    def digest():
        files = [path / "saved_model.pb", *sorted(path.glob("variables/*"))]
        return digest_of(signature, *(file.read_bytes() for file in files))

    answer.variables_of = loaded  # else they would be collected
    num_classes = function.structured_outputs[target].shape[-1]
    return Answerer(answer, num_classes, own, digest)


def _image_signature(function) -> tuple[tf.TensorSpec, str] | None:
    """The input and the name of the output, if images go in and classes come out."""
    _, inputs = function.structured_input_signature
    outputs = {
        name: spec
        for name, spec in function.structured_outputs.items()
        if len(_shape(spec)) == 2 and _shape(spec)[-1] is not None
    }
    names = list(outputs)
    target = "logits" if "logits" in outputs else names[0] if len(names) == 1 else None
    if len(inputs) != 1 or target is None:
        return None
    ((name, spec),) = inputs.items()
    shape = _shape(spec)
    is_image = len(shape) == 4 and shape[0] is None and shape[-1] == 3
    if not is_image or not (spec.dtype.is_floating or spec.dtype == tf.uint8):
        return None
    return tf.TensorSpec(spec.shape, spec.dtype, name), target


def _shape(spec) -> tuple:
    """The shape of a spec; () if even the rank is unknown."""
    return () if spec.shape.rank is None else tuple(spec.shape)


def _load(path: Path):
    """Loads a SavedModel, also one in which an optimizer of Keras 2 was saved.

    Without Keras 2 such an optimizer cannot be made again (issue 56997 of TensorFlow).
    A teacher needs none: then a copy of the program without its state is loaded.
    """
    try:
        return tf.saved_model.load(str(path))
    except AttributeError as error:
        if "add_slot" not in str(error):
            raise
    file = (path / "saved_model.pb").read_bytes()
    program = saved_model_pb2.SavedModel.FromString(file)
    for graph in program.meta_graphs:
        for node in graph.object_graph_def.nodes:
            del node.slot_variables[:]
    with TemporaryDirectory() as folder:
        for part in (p for p in ("variables", "assets") if (path / p).is_dir()):
            (Path(folder) / part).symlink_to((path / part).resolve())
        (Path(folder) / "saved_model.pb").write_bytes(program.SerializeToString())
        # The state of the optimizer is in the files of variables, and stays there.
        options = tf.saved_model.LoadOptions(allow_partial_checkpoint=True)
        loaded = tf.saved_model.load(folder, options=options)
    missing = [v.name for v in getattr(loaded, "variables", ()) if not _is_there(v)]
    check(not missing, "A weight is missing.", weights=missing[:5])
    return loaded


def _is_there(variable) -> bool:
    return bool(variable.is_initialized())
