// The page: loads an exported model, classifies the images that are given, shows it.

import { fetchArtifact } from "./artifact.js";
import { showFacts, showResult, showThumbnail } from "./show.js";

const DEFAULT_MODEL = "model/model.tflite";

const element = (id) => document.getElementById(id);
const worker = new Worker("worker.js");
const results = []; // of each image: {name, view, answers}
let model; // {signatures, imageSize, labels, cropRatio}
let selected; // a result
let signature; // whose answer is shown
let queue = Promise.resolve(); // images wait for those before them

/** Asks the worker, which does one thing at a time. */
function ask(request, transfer = []) {
  return new Promise((resolve, reject) => {
    worker.onmessage = ({ data }) =>
      data.error === undefined ? resolve(data.answer) : reject(new Error(data.error));
    worker.onerror = (event) => reject(new Error(`The worker failed: ${event.message}`));
    worker.postMessage(request, transfer);
  });
}

async function load() {
  if (!("WebAssembly" in self) || !("OffscreenCanvas" in self)) {
    throw new Error("This browser has no WebAssembly or no OffscreenCanvas");
  }
  const path = new URLSearchParams(location.search).get("model") ?? DEFAULT_MODEL;
  const { content, labels, certificate } = await fetchArtifact(path, (share) => {
    element("progress").value = share;
  });
  element("stage").textContent = "Starting the model";
  element("progress").removeAttribute("value");
  const bytes = content.byteLength;
  const loaded = await ask({ action: "load", content }, [content]);
  if (labels.length !== loaded.numClasses) {
    throw new Error(
      "There must be one label for each class. " +
        `Received: ${labels.length} labels, ${loaded.numClasses} classes`,
    );
  }
  const signatures = dial(loaded.signatures, certificate);
  const cropRatio = certificate.preprocessing.crop_ratio;
  model = { imageSize: loaded.imageSize, labels, cropRatio, signatures };
  signature = signatures[0].name;
  showFacts(certificate, bytes, loaded.imageSize, signatures);
  element("loading").hidden = true;
  element("picker").hidden = false;
}

/** The signatures to offer, the most tokens first: keep rates if there are any. */
function dial(names, certificate) {
  const rated = names.filter((name) => certificate.signatures[name]?.keep_rate != null);
  return (rated.length > 0 ? rated : ["serving_default"])
    .map((name) => ({ name, ...certificate.signatures[name] }))
    .sort((a, b) => b.keep_rate - a.keep_rate);
}

/** Classifies files one after another; one that cannot be read is told of. */
async function classify(files) {
  clearError();
  for (const [index, file] of files.entries()) {
    element("status").textContent = `Classifying ${index + 1} of ${files.length} …`;
    try {
      const request = { action: "classify", file, cropRatio: model.cropRatio };
      const names = model.signatures.map(({ name }) => name);
      const { view, answers } = await ask({ ...request, names });
      add({ name: file.name, view, answers });
    } catch (error) {
      showError(`${file.name}: ${error.message}`);
    }
  }
  const count = results.length;
  element("status").textContent = `${count} image${count === 1 ? "" : "s"} classified`;
}

function add(result) {
  results.push(result);
  showThumbnail(result, model, () => select(result));
  select(result);
}

function select(result) {
  selected = result;
  const buttons = element("thumbnails").querySelectorAll("button");
  buttons.forEach((button, index) => {
    button.setAttribute("aria-pressed", String(results[index] === selected));
  });
  show();
}

function show() {
  showResult(selected, model, signature, (name) => {
    signature = name;
    show();
  });
  element("result").hidden = false;
}

function enqueue(files) {
  if (!model || files.length === 0) return;
  queue = queue.then(() => classify(files));
}

function showError(message) {
  const error = element("error");
  if (!error.hidden) message = `${error.textContent}\n${message}`;
  error.textContent = message;
  error.hidden = false;
}

function clearError() {
  element("error").hidden = true;
}

element("files").addEventListener("change", ({ target }) => {
  enqueue([...target.files]);
  target.value = ""; // so that the same file can be chosen again
});
document.addEventListener("dragover", (event) => {
  event.preventDefault();
  element("drop").classList.toggle("over", Boolean(model));
});
document.addEventListener("dragleave", (event) => {
  if (!event.relatedTarget) element("drop").classList.remove("over");
});
document.addEventListener("drop", (event) => {
  event.preventDefault();
  element("drop").classList.remove("over");
  enqueue([...event.dataTransfer.files]);
});

load().catch((error) => {
  element("loading").hidden = true;
  showError(error.message);
});
