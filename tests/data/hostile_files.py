"""Image files as strangers send them: written by hand, cut, swollen, or lying."""

import io
import struct
import zlib

import numpy as np
from PIL import Image

from tests.data.pictures import noise, smooth


def encoded(image, kind, **options):
    """An array or a PIL image as a file."""
    image = Image.fromarray(image) if isinstance(image, np.ndarray) else image
    file = io.BytesIO()
    image.save(file, kind, **options)
    return file.getvalue()


def png_chunk(kind, data):
    body = kind + data
    return struct.pack(">I", len(data)) + body + struct.pack(">I", zlib.crc32(body))


def png(columns, rows, *chunks, bits=8, color=2):
    header = struct.pack(">IIBBBBB", columns, rows, bits, color, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + png_chunk(b"IHDR", header) + b"".join(chunks)


def jpeg(columns, rows):
    """A JPEG that ends where its first scan begins: grey, without tables."""
    frame = struct.pack(">HBHHB3B", 11, 8, rows, columns, 1, 1, 0x11, 0)
    scan = struct.pack(">HB2B3B", 8, 1, 1, 0, 0, 63, 0)
    return b"\xff\xd8\xff\xc0" + frame + b"\xff\xda" + scan


def bmp(columns, rows):
    header = struct.pack("<IiiHHIIiiII", 40, columns, rows, 1, 24, 0, 0, 1, 1, 0, 0)
    return b"BM" + struct.pack("<IHHI", 54, 0, 0, 54) + header


def riff(kind, data):
    chunk = kind + struct.pack("<I", len(data)) + data
    return b"RIFF" + struct.pack("<I", len(chunk) + 4) + b"WEBP" + chunk


def webp_lossy(columns, rows):
    return riff(b"VP8 ", b"\0\0\0\x9d\x01\x2a" + struct.pack("<HH", columns, rows))


def webp_lossless(columns, rows):
    bits = (columns - 1) | (rows - 1) << 14
    return riff(b"VP8L", b"\x2f" + struct.pack("<I", bits) + bytes(7))


def webp_extended(columns, rows, flags=0):
    sizes = (columns - 1).to_bytes(3, "little") + (rows - 1).to_bytes(3, "little")
    return riff(b"VP8X", struct.pack("<I", flags) + sizes)


COLORS = (0, 0, 0, 250, 0, 0, 0, 250, 0, 0, 0, 250)  # black, red, green, blue


def gif(columns, rows, *parts, colors=COLORS):
    """A GIF of four colors, with parts from `gif_frame` and `gif_extension`."""
    canvas = struct.pack("<HHBBB", columns, rows, 0x81 if colors else 0, 0, 0)
    return b"GIF89a" + canvas + bytes(colors) + b"".join(parts) + b";"


def gif_extension(kind, *blocks):
    return bytes([0x21, kind]) + gif_blocks(*blocks)


def gif_blocks(*blocks):
    return b"".join(bytes([len(block)]) + block for block in blocks) + b"\0"


def gif_frame(pixels, left=0, top=0, colors=(), interlaced=False, block=255):
    """A frame whose pixels (rows, columns) are numbers of colors."""
    rows, columns = np.shape(pixels)
    order = range(rows)
    if interlaced:
        passes = ((0, 8), (4, 8), (2, 4), (1, 2))
        order = [row for begin, step in passes for row in range(begin, rows, step)]
    flags = (0x81 if colors else 0) | (0x40 if interlaced else 0)
    place = struct.pack("<HHHHB", left, top, columns, rows, flags)
    values = np.asarray(pixels)[list(order)].ravel()
    # Codes keep their 3 bits if the table is cleared (4) before each pixel; 5 ends.
    codes = [code for value in values for code in (4, int(value))] + [5]
    bits = sum(code << 3 * i for i, code in enumerate(codes))
    data = bits.to_bytes(3 * len(codes) // 8 + 1, "little")
    blocks = [data[i : i + block] for i in range(0, len(data), block)]
    return b"," + place + bytes(colors) + b"\x02" + gif_blocks(*blocks)


def gif_bomb(frames=50, side=3000):
    """Eight pixels each way; then frames that are huge when unpacked."""
    large = encoded(Image.new("P", (side, side)), "GIF")
    frame = large[large.index(b",") : -1]
    return gif(8, 8, gif_frame(np.ones((8, 8), int)), frame * frames)


def png_bomb(side=20_000):
    """Black: 1.2 gigabytes, in about one megabyte."""
    packer = zlib.compressobj(9)
    row = bytes(1 + 3 * side)
    data = b"".join(packer.compress(row) for _ in range(side)) + packer.flush()
    return png(side, side, png_chunk(b"IDAT", data), png_chunk(b"IEND", b""))


def png_with_text(size):
    """A whole PNG with a comment that is huge, and one more when unpacked."""
    whole = encoded(noise(24, 32), "PNG")
    packed = zlib.compress(bytes(size))
    texts = png_chunk(b"tEXt", b"Comment\0" + b"a" * size)
    texts += png_chunk(b"zTXt", b"Comment\0\0" + packed)
    return whole[:33] + texts + whole[33:]


def jpeg_of_scans(count, side=64):
    """A progressive JPEG that refines the same coefficients again and again."""
    whole = encoded(Image.new("L", (side, side)), "JPEG", progressive=True)
    scan = whole[whole.rindex(b"\xff\xda") : -2]
    return whole[:-2] + scan * count + whole[-2:]


def animated(kind, **options):
    frames = [Image.fromarray(noise(24, 32)), Image.new("RGB", (32, 24), "red")]
    return encoded(frames[0], kind, save_all=True, append_images=frames[1:], **options)


TOO_LARGE = {
    "jpeg": jpeg(10_000, 10_000),
    "png": png(10_000, 10_000),
    "bmp": bmp(10_000, 10_000),
    "bmp from above": bmp(10_000, -10_000),
    "gif canvas": gif(10_000, 10_000, gif_frame([[1]])),
    "gif frame": gif(4, 4, b"," + struct.pack("<HHHHB", 0, 0, 10_000, 10_000, 0)),
    "gif frame far out": gif(4, 4, gif_frame([[1]], left=60_000, top=60_000)),
    "webp lossy": webp_lossy(10_000, 10_000),
    "webp lossless": webp_lossless(10_000, 10_000),
    "webp extended": webp_extended(10_000, 10_000),
    "png, as large as can be": png(2**32 - 1, 2**32 - 1),
    "png, wide": encoded(Image.new("L", (100_000, 2)), "PNG"),
    "png, tall": encoded(Image.new("L", (1, 60_000)), "PNG"),
}
NOT_IMAGES = {
    "nothing": b"",
    "one byte": b"\xff",
    "text": b"hello, this is no image at all\n" * 9,
    "zeros": bytes(999),
    "html": b"<html><img src='x.png'></html>",
    "svg": b"<svg xmlns='http://www.w3.org/2000/svg' width='9' height='9'/>",
    "pdf": b"%PDF-1.7\n",
    "tiff": encoded(noise(9, 9), "TIFF"),
    "ico": encoded(noise(16, 16), "ICO"),
    "animated webp": animated("WEBP", lossless=True),
    "gif without a frame": gif(4, 4),
    "png of no rows": png(5, 0),
    "jpeg of no columns": jpeg(0, 5),
    "scans without end": jpeg_of_scans(100),
}


def after_magic_numbers(seed=0, size=500):
    """Random bytes that begin as each of the formats."""
    random = np.random.default_rng(seed)
    starts = {
        "jpeg": b"\xff\xd8\xff\xe0\x00\x10JFIF\0",
        "png": b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR\0\0\0\x09\0\0\0\x09",
        "gif": b"GIF89a\x09\0\x09\0",
        "bmp": bmp(9, 9),
        "webp": b"RIFF\xff\0\0\0WEBPVP8 ",
    }
    return {
        f"{kind}, then noise": start + random.bytes(size)
        for kind, start in starts.items()
    }


def smooth_files():
    """One picture of 24 x 32 in each format."""
    picture = smooth(24, 32)
    return {
        "jpeg": encoded(picture, "JPEG"),
        "progressive jpeg": encoded(picture, "JPEG", progressive=True),
        "png": encoded(picture, "PNG"),
        "bmp": encoded(picture, "BMP"),
        "gif": encoded(picture, "GIF"),
        "webp": encoded(picture, "WEBP"),
        "lossless webp": encoded(picture, "WEBP", lossless=True),
    }
