"""The programs: `python -m trainers PROGRAM --flags`, or `keras-deit PROGRAM`."""

import os

# TensorFlow reads this when it is imported, which is later: no chatter of its own.
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
