"""How far a long work has come."""

from collections.abc import Iterable


def tracked(steps: Iterable, title: str, total: int, shown: bool = True) -> Iterable:
    """Yields the steps, with a bar and the time left on standard error.

    Args:
        steps: The steps.
        title: What is being done, for instance "Evaluating".
        total: How many steps there are; below 1 if it is not known.
        shown: Whether there is to be a bar; there is none where standard error is no
            terminal.

    Returns:
        The same steps.
    """
    if not shown:
        return steps
    from rich.console import Console
    from rich.progress import track

    console = Console(stderr=True)
    return track(
        steps,
        title,
        total=total if total > 0 else None,
        console=console,
        disable=not console.is_terminal,
    )
