"""Small pictures on which operations are compared with PIL's."""

import numpy as np
from PIL import Image


def gradient(rows, columns):
    """Channels that grow to the right, down, and both ways."""
    y, x = np.mgrid[:rows, :columns]
    channels = [x * 255 // columns, y * 255 // rows, 60 + (x + y) * 90 // rows]
    return np.stack(channels, axis=-1).astype(np.uint8)


def noise(rows, columns):
    return np.random.default_rng(0).integers(0, 256, (rows, columns, 3), np.uint8)


def smooth(rows, columns):
    """A random field with the slow changes of a photograph."""
    coarse = np.random.default_rng(1).normal(128, 60, (3, rows // 8 + 2, columns // 8))
    size = (columns, rows)
    fields = [
        Image.fromarray(field.astype(np.float32)).resize(size, Image.Resampling.BICUBIC)
        for field in coarse
    ]
    return np.clip(np.stack(fields, axis=-1), 0, 255).astype(np.uint8)


def constant(rows, columns):
    return np.broadcast_to(np.uint8([200, 13, 77]), (rows, columns, 3)).copy()


PICTURES = {
    "gradient": gradient(32, 32),
    "wide gradient": gradient(24, 37),
    "noise": noise(33, 28),
    "smooth": smooth(40, 48),
    "narrow range": 90 + smooth(32, 32) // 8,
    "constant": constant(16, 16),
}
