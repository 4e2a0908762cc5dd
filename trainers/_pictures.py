"""Figures of what a model looked at: views with maps over them, side by side."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from keras_deit._files import replacing
from keras_deit.layers.prefix_tokens import PREFIX_TOKENS

PANEL, TALLEST = 2.0, 3.0  # inches: width of a panel, and its greatest height
GAP, MARGIN, LINE = 0.1, 0.3, 0.17  # inches
DPI = 150
FINE = 256  # pixels that the shorter side of a view is enlarged to, at least
NAME_LENGTH = 26  # letters that fit over a panel
LETTER = 0.125  # inches: width of a letter of the title, at most on average
COLORS = "inferno"
SHADE = 0.85  # how much of a patch that was dropped is white
FAINTEST, STRONGEST = 0.25, 0.8  # how much of a pixel is the color of the map
RIGHT, WRONG = "#1a7f37", "#b42318"
NOTE = "Each map has its own scale, from its smallest value (dark) to its largest."


@dataclass(frozen=True)
class Panel:
    """A view, perhaps with a map over it.

    Attributes:
        lines: What stands over it.
        view: Pixels, uint8, shape (H, W, 3).
        heat: Any numbers, shape (rows, columns), one for each patch; None for none.
        kept: Which patches are there, bool, shape (rows, columns); the others are
            shaded, and their numbers do not count. None for all.
        color: Of the lines.
    """

    lines: tuple[str, ...]
    view: np.ndarray
    heat: np.ndarray | None = None
    kept: np.ndarray | None = None
    color: str = "black"


def short(text: str, length: int = NAME_LENGTH) -> str:
    """Cuts a text so that it fits, by default over a panel."""
    return text if len(text) <= length else f"{text[: length - 3]}..."


def rounded_percent(share: float) -> str:
    """Writes a share in [0, 1] for a figure, for instance "97.2 %"."""
    return f"{100 * share:.1f} %"


def painted(panel: Panel) -> np.ndarray:
    """The pixels of a panel, float64 in [0, 1], enlarged; shape (height, width, 3)."""
    factor = -(-FINE // min(panel.view.shape[:2]))
    pixels = panel.view.repeat(factor, axis=0).repeat(factor, axis=1) / 255
    size = pixels.shape[:2]
    if panel.heat is not None:
        pixels = _heated(pixels, _scaled(panel.heat, panel.kept))
    if panel.kept is not None:
        there = _enlarged(panel.kept, size, "nearest")
        pixels = np.where(there > 0.5, pixels, SHADE + (1 - SHADE) * pixels)
    return pixels


def _scaled(heat: np.ndarray, kept: np.ndarray | None) -> np.ndarray:
    """Brings the numbers of the patches that are there to [0, 1]."""
    present = heat if kept is None else heat[kept]
    low, high = present.min(), present.max()
    return np.clip((heat - low) / max(high - low, 1e-12), 0, 1)


def _heated(pixels: np.ndarray, heat: np.ndarray) -> np.ndarray:
    """Colors a grey view: the larger the number, the brighter and the stronger."""
    from matplotlib import colormaps

    heat = _enlarged(heat, pixels.shape[:2], "bicubic")  # (height, width, 1)
    grey = pixels.mean(axis=-1, keepdims=True)
    share = FAINTEST + (STRONGEST - FAINTEST) * heat
    return (1 - share) * grey + share * colormaps[COLORS](heat[..., 0])[..., :3]


def _enlarged(grid: np.ndarray, size: tuple[int, int], method: str) -> np.ndarray:
    import tensorflow as tf

    grid = tf.image.resize(grid[..., None].astype("float32"), size, method)
    return np.clip(grid.numpy(), 0, 1)


class _Page:
    """A figure; its places are inches from the left and from the top.

    Args:
        width: Of the figure.
        height: Of the figure.
    """

    def __init__(self, width: float, height: float):
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure

        self.width, self.height = width, height
        self.figure = Figure(figsize=(width, height))
        FigureCanvasAgg(self.figure)  # draws without a screen

    def write(self, text: str, left: float, top: float, size: float, **style) -> None:
        """Writes a text on a line at `top`."""
        place = left / self.width, 1 - top / self.height
        # Names of classes and files may hold what matplotlib takes for formulas.
        self.figure.text(*place, text, fontsize=size, parse_math=False, **style)

    def show(self, panel: Panel, left: float, top: float, height: float) -> None:
        """Shows a panel below its lines."""
        for line in panel.lines:
            top += LINE
            style = {"color": panel.color, "ha": "center"}
            self.write(line, left + PANEL / 2, top, 8, **style)
        bottom = 1 - (top + GAP / 2 + height) / self.height
        box = (left / self.width, bottom, PANEL / self.width, height / self.height)
        axes = self.figure.add_axes(box)
        axes.imshow(painted(panel))
        axes.set_axis_off()


def draw(
    path: Path,
    title: str,
    sections: dict[str, Sequence[Panel]],
    note: str,
    columns: int = 6,
    group: int = 6,
) -> None:
    """Writes a PNG of panels in rows, a heading over each section.

    Args:
        path: The file to write.
        title: What stands over all.
        sections: Panels by heading, "" for none; of one size, and with as many lines.
        note: What stands below all.
        columns: Panels in a row.
        group: Panels that belong together; more space is between groups.
    """
    first = next(iter(sections.values()))[0]
    height = min(PANEL * first.view.shape[0] / first.view.shape[1], TALLEST)
    row = len(first.lines) * LINE + height + 1.5 * GAP
    rows = {heading: -(-len(panels) // columns) for heading, panels in sections.items()}
    width = 2 * MARGIN + columns * (PANEL + GAP) - GAP + (columns - 1) // group * MARGIN
    headings = sum(map(bool, sections))
    page = _Page(
        width, 2 * MARGIN + 4 * LINE + 2 * LINE * headings + row * sum(rows.values())
    )
    top = MARGIN + LINE
    title = short(title, int(width / LETTER))
    page.write(title, MARGIN, top, 12, fontweight="bold")
    top += LINE
    for heading, panels in sections.items():
        if heading:
            page.write(heading, MARGIN, top + 1.4 * LINE, 10)
            top += 2 * LINE
        for index, panel in enumerate(panels):
            column = index % columns
            left = MARGIN + column * (PANEL + GAP) + column // group * MARGIN
            page.show(panel, left, top + index // columns * row, height)
        top += row * rows[heading]
    page.write(note, MARGIN, page.height - MARGIN, 8, color="0.35")
    with replacing(path) as partial:
        page.figure.savefig(partial, dpi=DPI)


def draw_explanation(explanation, names: Sequence[str], name: str, path: Path) -> None:
    """Draws what a model looked at in one picture.

    Args:
        explanation: An `Explanation`.
        names: Name of each class.
        name: What to call the picture.
        path: The file to write.
    """
    view, prefix = explanation.view, PREFIX_TOKENS[: len(explanation.rollout)]
    seen = [Panel((f"{view.shape[0]} x {view.shape[1]} pixels",), view)]
    for token, heat in zip(prefix, explanation.rollout, strict=True):
        seen.append(Panel((f"rollout of the {token} token",), view, heat))
    for stage, kept in enumerate(explanation.kept, start=1):
        line = f"stage {stage}: {kept.sum()} of {kept.size} patches"
        seen.append(Panel((line,), view, kept=kept))
    sections = {"What the model sees, and what its answer comes from": seen}
    for token, maps in zip(
        prefix, np.moveaxis(explanation.attention, 1, 0), strict=True
    ):
        sections[f"Attention of the {token} token in each block, mean of its heads"] = [
            Panel(
                (f"block {block}, up to {rounded_percent(heat.max())}",),
                view,
                heat,
                heat > 0,
            )
            for block, heat in enumerate(maps)
        ]
    note = f"{NOTE} Patches that were dropped are white."
    title = f"{name}: {best_classes(explanation.logits, names)}"
    draw(path, title, sections, note if len(explanation.kept) else NOTE)


def best_classes(logits: np.ndarray, names: Sequence[str], count: int = 3) -> str:
    """Names the best classes and their probabilities, the best first."""
    shares = np.exp(logits - logits.max())
    shares /= shares.sum()
    best = np.argsort(-shares, kind="stable")[:count]
    return ", ".join(f"{names[i]} {rounded_percent(shares[i])}" for i in best)


def draw_disagreements(answers, explanations: dict, names, title: str, path: Path):
    """Draws images where two heads differ, each with the rollouts of both.

    Args:
        answers: An `Answers`.
        explanations: An `Explanation` by number of the image, in the order to draw.
        names: Name of each class.
        title: What stands over all.
        path: The file to write.
    """
    panels = []
    for index, explanation in explanations.items():
        label = short(names[answers.label[index]])
        panels.append(Panel((f"image {index}, label:", label), explanation.view))
        for head, heat in zip(PREFIX_TOKENS, explanation.rollout, strict=True):
            sure = rounded_percent(answers.probability[head][index])
            said = short(names[answers.best[head][index]])
            color = RIGHT if answers.right(head)[index] else WRONG
            lines = (f"{head} head: {sure}", said)
            panels.append(Panel(lines, explanation.view, heat, color=color))
    note = f"Rollout of both tokens; green is right, red is wrong.\n{NOTE}"
    draw(path, title, {"": panels}, note, min(6, len(panels)), group=3)
