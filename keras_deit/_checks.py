"""How bad input is refused: the rule first, then what was received."""

from collections.abc import Collection
from difflib import get_close_matches


def check(holds: bool, rule: str, **received: object) -> None:
    """Raises `ValueError("<rule> Received: name=value, ...")` unless `holds`."""
    if not holds:
        values = ", ".join(f"{name}={value!r}" for name, value in received.items())
        raise ValueError(f"{rule} Received: {values}.")


def check_choice(name: str, value: object, choices: Collection[str]) -> None:
    """Raises `ValueError` unless `value` is one of `choices`; names the nearest one."""
    near = get_close_matches(str(value), list(choices), n=1)
    hint = f" Did you mean {near[0]!r}?" if near else ""
    rule = f"`{name}` must be one of {sorted(choices)}.{hint}"
    check(value in choices, rule, **{name: value})


def check_share(name: str, value: float) -> None:
    """Raises `ValueError` unless `value` is a share, in [0, 1]."""
    check(0 <= value <= 1, f"`{name}` must be in [0, 1].", **{name: value})
