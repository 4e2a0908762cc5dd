"""A SavedModel that TF Serving loads: image bytes in, labels out."""

from hashlib import sha256
from pathlib import Path

import keras
import numpy as np
import tensorflow as tf

from keras_deit._checks import check
from keras_deit._files import unfinished
from keras_deit.data.geometry import decode_image, evaluation_view
from keras_deit.export.certificate import certify, check_images, check_labels, compare
from keras_deit.models.inference import (
    float32_model,
    inference_model,
    input_size,
)
from keras_deit.models.preprocessing import preprocessing_of


def saved_model(
    model: keras.Model,
    path: str | Path,
    labels=None,
    images=None,
    head: str = "fused",
    top_k: int = 5,
) -> Path:
    """Exports a model in the layout of TF Serving, `path/<version>/`.

    There are two signatures, each for any batch size:

    - `serving_default`: `image_bytes`, strings (B,), each a JPEG, PNG, BMP or GIF; it
      is decoded, resized and cropped as in evaluation.
    - `pixels`: `pixels`, uint8 (B, H, W, 3), at the model's size.

    Both return `logits` (B, Y), `probabilities` (B, Y), and the best classes, best
    first: `top_k_classes` int32, `top_k_scores` float32 (probabilities) and
    `top_k_labels` string, each (B, k).

    The artifact is loaded again and must equal the model on real images; the proof is
    `certificate.json` in the version's folder. If it does not, nothing is left behind.

    Args:
        model: A one-head or a distilled model of known input size. The artifact
            computes in float32, whatever the model's dtype policy.
        path: The base folder; the next whole number becomes the version.
        labels: Name of each class, in the order of the logits; None numbers them.
        images: Real images to check on, uint8 RGB, each of any size; None takes
            embedded handwritten digits.
        head: Which head answers, as in `inference_model`.
        top_k: How many of the best classes are named, at least 1; all if there are
            fewer.

    Returns:
        The folder of the new version.

    Raises:
        ValueError: If an argument is refused.
        RuntimeError: If the artifact differs from the model.
        OSError: If `path` cannot be written.
    """
    one_head = float32_model(inference_model(model, head))
    num_classes = one_head.output.shape[-1]
    names = check_labels(labels, num_classes)
    images = check_images(images)
    check(top_k >= 1, "`top_k` must be at least 1.", top_k=top_k)
    archive = _archive(one_head, names, min(top_k, num_classes))
    base = Path(path)
    with unfinished(base) as workshop:
        artifact = workshop / "artifact"
        archive.write_out(artifact, verbose=False)
        comparisons = _comparisons(artifact, one_head, images)
        files = sorted(path for path in artifact.rglob("*") if path.is_file())
        certify(
            artifact / "certificate.json",
            one_head,
            comparisons,
            kind="SavedModel",
            crop_ratio=preprocessing_of(one_head).crop_ratio,
            signatures=sorted(comparisons),
            bytes=sum(path.stat().st_size for path in files),
            sha256={
                str(path.relative_to(artifact)): sha256(path.read_bytes()).hexdigest()
                for path in files
            },
        )
        target = base / str(_next_version(base))
        return artifact.rename(target)


def _archive(model: keras.Model, labels: list[str], k: int):
    height_width = input_size(model)
    crop_ratio = preprocessing_of(model).crop_ratio

    def answer(pixels):
        logits = model(tf.cast(pixels, tf.float32), training=False)
        probabilities = tf.nn.softmax(logits)
        scores, classes = tf.math.top_k(probabilities, k)
        return {
            "logits": logits,
            "probabilities": probabilities,
            "top_k_classes": classes,
            "top_k_scores": scores,
            "top_k_labels": tf.gather(tf.constant(labels), classes),
        }

    def from_bytes(image_bytes):
        def view(one):
            return evaluation_view(decode_image(one), height_width, crop_ratio)

        spec = tf.TensorSpec((*height_width, 3), tf.uint8)
        return answer(tf.map_fn(view, image_bytes, fn_output_signature=spec))

    # Without `track(model)`: the endpoints' weights are saved anyway, and it would save
    # them a second time, as Keras' own variables.
    archive = keras.export.ExportArchive()
    archive.add_endpoint(
        "serving_default",
        from_bytes,
        input_signature=[tf.TensorSpec((None,), tf.string, "image_bytes")],
    )
    archive.add_endpoint(
        "pixels",
        answer,
        input_signature=[tf.TensorSpec((None, *height_width, 3), tf.uint8, "pixels")],
    )
    return archive


def _comparisons(artifact: Path, model: keras.Model, images: list[np.ndarray]) -> dict:
    """Runs every signature of the saved artifact on the images."""
    signatures = tf.saved_model.load(str(artifact)).signatures
    height_width = input_size(model)
    crop_ratio = preprocessing_of(model).crop_ratio
    pairs = [(tf.io.encode_png(i), tf.io.encode_jpeg(i)) for i in images]
    files = tf.stack([one for pair in pairs for one in pair])
    pixels = tf.stack(
        [evaluation_view(decode_image(one), height_width, crop_ratio) for one in files]
    )
    expected = model(tf.cast(pixels, tf.float32), training=False)
    received = {
        "serving_default": signatures["serving_default"](image_bytes=files),
        "pixels": signatures["pixels"](pixels=pixels),
    }
    return {name: compare(expected, r["logits"]) for name, r in received.items()}


def _next_version(base: Path) -> int:
    versions = [int(p.name) for p in base.iterdir() if p.name.isdecimal()]
    return max(versions, default=0) + 1
