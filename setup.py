"""The package keras-deit: what it holds and what it needs."""

from pathlib import Path

from setuptools import find_packages, setup

ROOT = Path(__file__).parent
VERSION: dict = {}
exec((ROOT / "keras_deit" / "version.py").read_text(), VERSION)

setup(
    name="keras-deit",
    version=VERSION["__version__"],
    description="Vision Transformers that learn from a convolutional teacher, in Keras",
    long_description=(ROOT / "README.md").read_text(),
    long_description_content_type="text/markdown",
    license="Apache-2.0",
    packages=find_packages(include=["keras_deit*", "trainers*"]),
    python_requires=">=3.11,<3.14",
    # Lower bounds are the versions that the tests ran with; upper bounds are the next
    # version that may break a promise. Keras is bounded to a minor version, because
    # `Distiller` overrides parts of its trainer.
    install_requires=[
        "absl-py>=2.1,<3",
        "ai-edge-litert>=2.1,<3",
        "flatbuffers>=24.3,<26",
        "h5py>=3.12,<4",
        "importlib_resources>=6",  # tensorflow-datasets imports it without saying so
        "keras>=3.15,<3.16",
        "keras-cv>=0.9,<0.10",
        "matplotlib>=3.11,<4",
        "ml-dtypes>=0.5,<1",
        "numpy>=2.0,<3",
        "rich>=14,<16",
        "safetensors>=0.5,<1",
        "scikit-learn>=1.6,<2",
        "tensorboard>=2.20,<3",
        "tensorflow>=2.21,<2.22",
        "tensorflow-datasets>=4.9.10,<5",
        "tensorflow-serving-api>=2.21,<2.22",  # protocol buffers, for warm-up requests
    ],
    extras_require={
        # What `python -m trainers benchmark` compares with; better in an environment of
        # its own (--peer_python). timm 1.0.31 asks Pillow to keep 0 bits, which Pillow
        # 13 refuses.
        "bench": [
            "keras-hub>=0.32,<0.33",
            "pillow>=11,<13",
            "timm>=1.0.20,<2",
            "torch>=2.6,<3",
            "torchvision>=0.21,<1",
        ],
        # Other engines than TensorFlow and LiteRT that a model can be exported for.
        "engines": [
            "onnx>=1.23,<2",
            "onnxruntime>=1.31,<2",
            "openvino>=2026.4,<2027",
            "tf2onnx>=1.17,<2",
        ],
        "dev": [
            "pre-commit>=4,<5",
            "pre-commit-hooks>=6,<7",
            "pytest>=8.4,<10",
            "pytest-xdist>=3.6,<4",
            "ruff>=0.17,<0.18",
        ],
    },
    entry_points={"console_scripts": ["keras-deit=trainers.__main__:main"]},
)
