"""How a contestant says that it cannot take part here, which is no failure."""


class LeftOutError(Exception):
    """A task cannot be done here; the text says why. The others go on."""
