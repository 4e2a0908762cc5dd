// Decoding an image to the pixels that are stored in it.

const AS_STORED = {
  imageOrientation: "none",
  colorSpaceConversion: "none",
  premultiplyAlpha: "none",
};
/** How the parts of a file follow each other, by its first two bytes. */
const FORMATS = {
  // JPEG: a marker, a length that counts itself, data; EXIF is before the scan.
  [0xffd8]: {
    begin: 2,
    end: (view, at) => at + 2 + view.getUint16(at + 2),
    isExif: (view, at) => view.getUint16(at) === 0xffe1,
    isLast: (view, at) => view.getUint16(at) === 0xffda || view.getUint8(at) !== 0xff,
  },
  // PNG: length of the data, four letters, data, check sum.
  [0x8950]: {
    begin: 8,
    end: (view, at) => at + 12 + view.getUint32(at),
    isExif: (view, at) => view.getUint32(at + 4) === 0x65584966, // eXIf
    isLast: (view, at) => view.getUint32(at + 4) === 0x49454e44, // IEND
  },
};

/**
 * Decodes an image file. Orientation and color profile are left alone, and
 * transparency is left out, as in Python.
 *
 * @param {Blob} file
 * @returns {Promise<{data: Uint8Array, width: number, height: number}>} RGB, row by row.
 */
export async function readImage(file) {
  const stored = withoutExif(await file.arrayBuffer());
  const bitmap = await createImageBitmap(stored, AS_STORED);
  try {
    const { width, height } = bitmap;
    return { data: await colors(bitmap), width, height };
  } finally {
    bitmap.close();
  }
}

/**
 * A JPEG or PNG without EXIF; anything else as it is.
 *
 * Browsers turn a picture as its EXIF says even if `imageOrientation` is "none".
 */
function withoutExif(buffer) {
  const view = new DataView(buffer);
  const format = FORMATS[view.getUint16(0)];
  if (!format) return new Blob([buffer]);
  let at = format.begin;
  const kept = [buffer.slice(0, at)];
  while (!format.isLast(view, at)) {
    const end = format.end(view, at);
    if (!format.isExif(view, at)) kept.push(buffer.slice(at, end));
    at = end;
  }
  return new Blob([...kept, buffer.slice(at)]);
}

/** RGB of a bitmap. */
async function colors(bitmap) {
  const { width, height } = bitmap;
  const canvas = new OffscreenCanvas(width, height).getContext("2d");
  canvas.drawImage(bitmap, 0, 0);
  const pixels = canvas.getImageData(0, 0, width, height).data;
  const isOpaque = pixels.every((value, i) => i % 4 !== 3 || value === 255);
  if (isOpaque || !self.VideoFrame) return withoutAlpha(pixels, [0, 1, 2]);
  // A canvas forgets the colors below transparency; a frame has them as stored.
  const frame = new VideoFrame(bitmap, { timestamp: 0 });
  try {
    const stored = new Uint8Array(frame.allocationSize());
    await frame.copyTo(stored);
    const isRgb = frame.format.startsWith("RGB");
    return withoutAlpha(stored, isRgb ? [0, 1, 2] : [2, 1, 0]);
  } finally {
    frame.close();
  }
}

/** Takes three of each four values. */
function withoutAlpha(pixels, [red, green, blue]) {
  const rgb = new Uint8Array((pixels.length / 4) * 3);
  for (let from = 0, to = 0; from < pixels.length; from += 4) {
    rgb[to++] = pixels[from + red];
    rgb[to++] = pixels[from + green];
    rgb[to++] = pixels[from + blue];
  }
  return rgb;
}
