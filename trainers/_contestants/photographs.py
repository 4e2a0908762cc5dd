"""Pictures for measurements: what a decoder has to do with them, not what they show."""

from pathlib import Path

import numpy as np

HEIGHT, WIDTH = 375, 500  # of most photographs in ImageNet
FALLOFF = 1.0  # of the amplitude with the frequency, as in photographs
QUALITY = 90


def write_photographs(folder: Path, number: int, num_classes: int = 2) -> None:
    """Writes JPEGs whose spectrum is that of photographs, into class folders.

    Light and two weaker colors are random fields whose amplitude falls with the
    frequency as in photographs of nature (Field 1987), so that files are about as
    large, and decoding takes about as long.

    Args:
        folder: Where the class folders are made.
        number: How many.
        num_classes: How many class folders they are dealt to.
    """
    from PIL import Image

    random = np.random.default_rng(0)
    for index in range(number):
        light, red, blue = (_field(random) for _ in range(3))
        pixels = np.stack(
            [
                120 + 50 * light + 12 * red,
                120 + 50 * light - 6 * red - 6 * blue,
                120 + 50 * light + 12 * blue,
            ],
            axis=-1,
        )
        image = Image.fromarray(np.clip(np.round(pixels), 0, 255).astype(np.uint8))
        path = folder / f"class{index % num_classes}" / f"{index:04}.jpg"
        path.parent.mkdir(parents=True, exist_ok=True)
        image.save(path, quality=QUALITY)


def _field(random: np.random.Generator) -> np.ndarray:
    """A random field of mean 0 and standard deviation 1, (HEIGHT, WIDTH)."""
    rows, columns = np.fft.fftfreq(HEIGHT)[:, None], np.fft.rfftfreq(WIDTH)[None]
    frequency = np.hypot(rows, columns)
    frequency[0, 0] = np.inf  # no mean
    noise = random.normal(size=(2, *frequency.shape))
    field = np.fft.irfft2(
        (noise[0] + 1j * noise[1]) / frequency**FALLOFF, (HEIGHT, WIDTH)
    )
    return field / field.std()
