"""Classifies images with TF Serving, over gRPC. Needs tensorflow-serving-api.

Usage: python grpc_client.py --model=NAME [--server=HOST:8500]
                             [--signature=keep_70] [--version=2 | --label=stable]
                             image.jpg [more images]

One line for each image: file, status, best label, probability. Without an answer the
status says why, and the label is empty.
"""

import argparse
import sys
from pathlib import Path

import grpc
from tensorflow import make_ndarray, make_tensor_proto
from tensorflow_serving.apis import predict_pb2, prediction_service_pb2_grpc

BATCH_SIZE = 32
MESSAGE_BYTES = 2**30  # gRPC's own limit is 4 MiB, a few photographs
OUTPUTS = ("status", "top_k_labels", "top_k_scores")  # TF Serving leaves out the others


def main() -> None:
    """Reads the command line and prints a line for each image."""
    parser = argparse.ArgumentParser(usage=__doc__)
    parser.add_argument("images", nargs="+", type=Path)
    parser.add_argument("--model", required=True)
    parser.add_argument("--server", default="localhost:8500")
    parser.add_argument("--signature", default="serving_default")
    version = parser.add_mutually_exclusive_group()
    version.add_argument("--version", type=int)
    version.add_argument("--label")
    parser.add_argument("--timeout", type=float, default=60, help="in seconds")
    options = parser.parse_args()
    limits = ("grpc.max_send_message_length", "grpc.max_receive_message_length")
    settings = [(limit, MESSAGE_BYTES) for limit in limits]
    with grpc.insecure_channel(options.server, settings) as channel:
        for start in range(0, len(options.images), BATCH_SIZE):
            batch = options.images[start : start + BATCH_SIZE]
            status, labels, scores = predict(channel, batch, options)
            for i, path in enumerate(batch):
                label = labels[i, 0].decode()
                print(f"{path}\t{status[i].decode()}\t{label}\t{scores[i, 0]:.4f}")


def predict(channel: grpc.Channel, paths: list[Path], options: argparse.Namespace):
    """Asks for some images at once; returns an array for each of `OUTPUTS`."""
    request = predict_pb2.PredictRequest()
    request.model_spec.name = options.model
    request.model_spec.signature_name = options.signature
    if options.version is not None:
        request.model_spec.version.value = options.version
    if options.label is not None:
        request.model_spec.version_label = options.label
    files = make_tensor_proto([path.read_bytes() for path in paths])
    request.inputs["image_bytes"].CopyFrom(files)
    request.output_filter.extend(OUTPUTS)
    stub = prediction_service_pb2_grpc.PredictionServiceStub(channel)
    try:
        answer = stub.Predict(request, timeout=options.timeout)
    except grpc.RpcError as error:
        code, details = error.code().name, error.details()
        sys.exit(f"{options.server} did not answer. {code}: {details}")
    return [make_ndarray(answer.outputs[name]) for name in OUTPUTS]


if __name__ == "__main__":
    main()
