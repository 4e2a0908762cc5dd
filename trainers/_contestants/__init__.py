"""What the benchmarks compare: each module is loaded by a process of its own."""

from pathlib import Path

MODULES = Path(__file__).resolve().parent
