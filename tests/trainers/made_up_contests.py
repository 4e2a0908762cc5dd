"""Contestants of a few lines, for the tests of the benchmarks."""

import textwrap

from trainers._contest import Contestant, Plan

STEP = """
    import time

    PACKAGES = ()
    PATH = ("step",)

    def tasks():
        def step():
            end = time.process_time() + HUNDREDTHS / 100
            while time.process_time() < end:
                pass
            return 8

        return {"step": lambda: step}
"""

# Two stages that take a hundredth and three hundredths of a second of work.
WORKER = """
    import time

    PACKAGES = ("numpy",)
    PATH = ("read", "all")

    def tasks(hundredths=(1, 3)):
        def work(number):
            def step():
                end = time.process_time() + number / 100
                while time.process_time() < end:
                    pass
                return 1

            return step

        read, whole = hundredths
        return {"read": lambda: work(read), "all": lambda: work(whole)}
"""


def planned(monkeypatch, folder, what, codes, **more):
    """Makes contestants of that code those of --what; returns where it will write."""
    contestants = []
    for name, code in codes.items():
        module = folder / f"{name}.py"
        module.write_text(textwrap.dedent(code))
        contestants.append(Contestant(name, module))

    def plan(values, settings, folder):
        return Plan("Made up", "cpu_seconds", contestants, **more)

    monkeypatch.setattr(f"trainers._benchmark_{what}.plan", plan)
    return folder / "out" / f"{what}.json"
