"""The programs: `python -m trainers PROGRAM --flags`, or `keras-deit PROGRAM`."""
