import numpy as np
import tensorflow as tf
from tensorflow_serving.apis.prediction_log_pb2 import PredictionLog

from keras_deit.export.warmup import write_warmup_requests


def test_there_is_a_record_for_each_signature_where_tf_serving_looks(tmp_path):
    pixels = np.arange(12, dtype=np.uint8).reshape(1, 2, 2, 3)
    requests = {
        "serving_default": {"image_bytes": np.array([b"\0png"], object)},
        "pixels": {"pixels": pixels},
    }
    path = write_warmup_requests(tmp_path, "animals", requests)
    assert path == tmp_path / "assets.extra" / "tf_serving_warmup_requests"
    found = {}
    for record in tf.data.TFRecordDataset(str(path)):
        request = PredictionLog.FromString(record.numpy()).predict_log.request
        assert request.model_spec.name == "animals"
        found[request.model_spec.signature_name] = {
            name: tf.make_ndarray(value) for name, value in request.inputs.items()
        }
    assert list(found) == ["serving_default", "pixels"]
    assert found["serving_default"]["image_bytes"].tolist() == [b"\0png"]
    np.testing.assert_array_equal(found["pixels"]["pixels"], pixels)
    assert found["pixels"]["pixels"].dtype == np.uint8
