"""Classifies images with TF Serving, over REST. Needs Python and nothing else.

Usage: python rest_client.py --model=NAME [--server=http://HOST:8501]
                             [--signature=keep_70] [--version=2 | --label=stable]
                             image.jpg [more images]

One line for each image: file, status, best label, probability. Without an answer the
status says why, and the label is empty.
"""

import argparse
import base64
import json
import sys
import urllib.error
import urllib.request
from pathlib import Path

BATCH_SIZE = 32


def main() -> None:
    """Reads the command line and prints a line for each image."""
    parser = argparse.ArgumentParser(usage=__doc__)
    parser.add_argument("images", nargs="+", type=Path)
    parser.add_argument("--model", required=True)
    parser.add_argument("--server", default="http://localhost:8501")
    parser.add_argument("--signature", default="serving_default")
    version = parser.add_mutually_exclusive_group()
    version.add_argument("--version", type=int)
    version.add_argument("--label")
    parser.add_argument("--timeout", type=float, default=60, help="in seconds")
    options = parser.parse_args()
    for start in range(0, len(options.images), BATCH_SIZE):
        batch = options.images[start : start + BATCH_SIZE]
        for path, answer in zip(batch, predict(batch, options), strict=True):
            label, score = answer["top_k_labels"][0], answer["top_k_scores"][0]
            print(f"{path}\t{answer['status']}\t{label}\t{score:.4f}")


def predict(paths: list[Path], options: argparse.Namespace) -> list[dict]:
    """Asks for some images at once; returns the outputs of each, by name."""
    url = f"{options.server}/v1/models/{options.model}"
    if options.version is not None:
        url += f"/versions/{options.version}"
    if options.label is not None:
        url += f"/labels/{options.label}"
    files = [base64.b64encode(path.read_bytes()).decode() for path in paths]
    body = {
        "signature_name": options.signature,
        "instances": [{"image_bytes": {"b64": file}} for file in files],
    }
    request = urllib.request.Request(f"{url}:predict", json.dumps(body).encode())
    try:
        with urllib.request.urlopen(request, timeout=options.timeout) as response:
            return json.load(response)["predictions"]
    except urllib.error.HTTPError as error:
        sys.exit(f"{url} answers with error {error.code}: {reason_of(error)}")
    except OSError as error:
        sys.exit(f"No answer from {url}: {error}")


def reason_of(error: urllib.error.HTTPError) -> str:
    """What TF Serving says, or whoever answers in its place."""
    text = error.read().decode(errors="replace")
    try:
        return json.loads(text)["error"]
    except (ValueError, KeyError, TypeError):
        return text.strip() or error.reason


if __name__ == "__main__":
    main()
