// How the model sees an image: the evaluation view, the same bytes as in Python.

const SUPPORT = 2; // where the cubic ends, in source pixels
const f = Math.fround; // in Python it is all float32, so each step is rounded here

/**
 * Resizes the shorter side to `side / cropRatio` and cuts out the center.
 *
 * @param {{data: Uint8Array, width: number, height: number}} image RGB, row by row.
 * @param {[number, number]} imageSize Height and width of the view, in pixels.
 * @param {number} cropRatio Side of the view over the shorter side, in (0, 1].
 * @returns {Uint8Array} RGB of the view, row by row, height * width * 3.
 */
export function evaluationView(image, imageSize, cropRatio) {
  const { width: columns, height: rows } = image;
  const [height, width] = imageSize.map((side) => Math.trunc(side / cropRatio));
  const widthBinds = rows * width >= columns * height;
  const newRows = widthBinds ? Math.floor((width * rows) / columns) : height;
  const newColumns = widthBinds ? width : Math.floor((height * columns) / rows);
  const top = roundHalfToEven((newRows - imageSize[0]) / 2);
  const left = roundHalfToEven((newColumns - imageSize[1]) / 2);
  const x = taps(columns, newColumns, left, imageSize[1]);
  const y = taps(rows, newRows, top, imageSize[0]);
  return resizeRows(resizeColumns(image, x), imageSize[1], y);
}

/** As `tf.round` and Python's `round`. */
function roundHalfToEven(value) {
  const rounded = Math.round(value);
  return rounded - value === 0.5 && rounded % 2 !== 0 ? rounded - 1 : rounded;
}

/**
 * Which source pixels make each new pixel, and their weights, which add up to 1.
 *
 * When an image shrinks, the cubic grows with the step: no source pixel is left out.
 */
function taps(length, newLength, begin, count) {
  const step = f(1 / f(newLength / length));
  const stretch = Math.max(step, 1);
  const shrink = f(1 / stretch);
  return Array.from({ length: count }, (_, i) => {
    const center = f((begin + i + 0.5) * step);
    const left = f(f(center - SUPPORT * stretch) - 0.5);
    const right = f(f(center + SUPPORT * stretch) - 0.5);
    const first = Math.max(Math.ceil(left), 0);
    const end = Math.min(Math.floor(right) + 1, length);
    const weights = new Float32Array(end - first).map((_, k) =>
      cubic(f(f(first + k + 0.5 - center) * shrink)),
    );
    const share = f(1 / weights.reduce((sum, weight) => f(sum + weight), 0));
    return { first, weights: weights.map((weight) => weight * share) };
  });
}

/** Keys' cubic with a = -1/2, as PIL has it. */
function cubic(x) {
  const t = Math.abs(x);
  if (t >= 2) return 0;
  if (t >= 1) return f(f(f(f(f(f(-0.5 * t) + 2.5) * t) - 4) * t) + 2);
  return f(f(f(f(f(1.5 * t) - 2.5) * t) * t) + 1);
}

/** Resizes each row: RGB (height, width) to RGB (height, x.length). */
function resizeColumns({ data, width, height }, x) {
  const resized = new Uint8Array(height * x.length * 3);
  let to = 0;
  for (let row = 0; row < height; row++) {
    for (const { first, weights } of x) {
      let [red, green, blue] = [0, 0, 0];
      let from = (row * width + first) * 3;
      for (let k = 0; k < weights.length; k++) {
        const weight = weights[k];
        red = f(red + f(weight * data[from++]));
        green = f(green + f(weight * data[from++]));
        blue = f(blue + f(weight * data[from++]));
      }
      resized[to++] = greyLevel(red);
      resized[to++] = greyLevel(green);
      resized[to++] = greyLevel(blue);
    }
  }
  return resized;
}

/** Resizes each column: RGB (any, width) to RGB (y.length, width). */
function resizeRows(data, width, y) {
  const length = width * 3;
  const resized = new Uint8Array(y.length * length);
  y.forEach(({ first, weights }, row) => {
    const sums = new Float32Array(length);
    weights.forEach((weight, k) => {
      const from = (first + k) * length;
      for (let i = 0; i < length; i++) sums[i] += f(weight * data[from + i]);
    });
    for (let i = 0; i < length; i++) resized[row * length + i] = greyLevel(sums[i]);
  });
  return resized;
}

/** Rounds halves upward and clips: an Uint8ClampedArray would round them to even. */
function greyLevel(value) {
  return Math.min(Math.max(Math.floor(f(value + 0.5)), 0), 255);
}
