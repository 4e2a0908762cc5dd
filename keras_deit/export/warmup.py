"""Requests that TF Serving answers for itself before it takes any from others."""

from pathlib import Path

import numpy as np
import tensorflow as tf

WARMUP_FILE = "assets.extra/tf_serving_warmup_requests"


def write_warmup_requests(
    artifact: Path, model_name: str, requests: dict[str, dict[str, np.ndarray]]
) -> Path:
    """Writes a warm-up request for each signature.

    The first request to a signature pays for what TensorFlow prepares; TF Serving sends
    these when it loads a version, before the version is available.

    Args:
        artifact: Folder of the SavedModel.
        model_name: Name that the model is served under.
        requests: For each signature, its arguments.

    Returns:
        The file, `PredictionLog` records in a TFRecord, where TF Serving looks for it.
    """
    from tensorflow_serving.apis import prediction_log_pb2

    path = artifact / WARMUP_FILE
    path.parent.mkdir()
    with tf.io.TFRecordWriter(str(path)) as writer:
        for signature, arguments in requests.items():
            record = prediction_log_pb2.PredictionLog()
            request = record.predict_log.request
            request.model_spec.name = model_name
            request.model_spec.signature_name = signature
            for name, value in arguments.items():
                request.inputs[name].CopyFrom(tf.make_tensor_proto(value))
            writer.write(record.SerializeToString())
    return path
