// Decodes, resizes and classifies beside the page, which stays responsive.
// A classic worker, not a module: LiteRT.js loads its WebAssembly by importScripts.
"use strict";

const RUNS = 5; // timed runs of each signature, after one that is not
const WASM = new URL("vendor/wasm/", self.location.href).href;

let litert, signatures, input;

const actions = {
  /** Compiles a model: ArrayBuffer to its signatures and [height, width]. */
  async load({ content }) {
    litert = await runtime();
    const model = await litert
      .loadAndCompile(new Uint8Array(content), { accelerator: "wasm" })
      .catch((error) => {
        throw new Error(`The file is no TFLite model that LiteRT.js can run: ${error.message}`);
      });
    signatures = model.signatures;
    for (const [name, signature] of Object.entries(signatures)) {
      const inputs = signature.getInputDetails().map((tensor) => tensor.name);
      const outputs = signature.getOutputDetails().map((tensor) => tensor.name);
      if (inputs.join() !== "pixels" || !outputs.includes("probabilities")) {
        throw new Error(
          "A signature must take `pixels` and return `probabilities`. " +
            `Received: ${name} takes ${inputs} and returns ${outputs}.`,
        );
      }
    }
    input = model.getInputDetails()[0];
    const numClasses = model
      .getOutputDetails()
      .find((tensor) => tensor.name === "probabilities").shape[1];
    return {
      signatures: Object.keys(signatures),
      imageSize: [...input.shape.subarray(1, 3)],
      numClasses,
    };
  },

  /** Classifies an image file with each of `names`, and takes the time. */
  async classify({ file, cropRatio, names }) {
    const { readImage } = await import("./image.js");
    const { evaluationView } = await import("./geometry.js");
    const image = await readImage(file).catch(() => {
      throw new Error("it is no image that this browser can read");
    });
    const view = evaluationView(image, [...input.shape.subarray(1, 3)], cropRatio);
    const pixels = input.dtype === "uint8" ? view : Float32Array.from(view);
    const tensor = litert.Tensor.fromTypedArray(pixels, [...input.shape]);
    try {
      return { view, answers: await answer(tensor, names) };
    } finally {
      tensor.delete();
    }
  },
};

/** Each signature's probabilities and median latency in ms; the signatures take turns. */
async function answer(pixels, names) {
  const answers = {};
  const times = Object.fromEntries(names.map((name) => [name, []]));
  for (let run = 0; run <= RUNS; run++) {
    for (const name of names) {
      const begin = performance.now();
      const outputs = await signatures[name].run({ pixels });
      if (run > 0) times[name].push(performance.now() - begin);
      const probabilities = outputs.probabilities.toTypedArray().slice();
      Object.values(outputs).forEach((output) => output.delete());
      answers[name] = { probabilities };
    }
  }
  for (const name of names) {
    answers[name].latency = times[name].sort((a, b) => a - b)[(RUNS - 1) / 2];
  }
  return answers;
}

/** LiteRT.js, started: with threads where the server's headers allow them. */
async function runtime() {
  const module = await import("./vendor/litert.js").catch(() => {
    throw new Error("LiteRT.js is not installed: run `npm install` beside the page");
  });
  const threads = self.crossOriginIsolated && (await module.supportsFeature("relaxedSimd"));
  self.Module = {
    locateFile: (file) => WASM + file,
    mainScriptUrlOrBlob: `${WASM}litert_wasm_threaded_internal.js`,
    printErr: console.debug,
  };
  await module.loadLiteRt(WASM, { threads });
  return module;
}

self.onmessage = async ({ data: { action, ...values } }) => {
  try {
    self.postMessage({ answer: await actions[action](values) });
  } catch (error) {
    self.postMessage({ error: error.message ?? String(error) });
  }
};
