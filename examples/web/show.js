// What is shown. Names come from files: they are text, never markup.

const TOP = 5;
const SHARP_BELOW = 100; // pixels; a smaller view is shown as squares

const element = (id) => document.getElementById(id);

/** A new element with a class, a text or children. */
function make(tag, className, ...children) {
  const made = document.createElement(tag);
  if (className) made.className = className;
  made.append(...children);
  return made;
}

const percent = (share) => `${(100 * share).toFixed(1)} %`;
const milliseconds = (time) => `${time.toFixed(time < 10 ? 2 : time < 100 ? 1 : 0)} ms`;

/** Tells of the model in the head of the page. */
export function showFacts(certificate, bytes, [height, width], [first]) {
  const facts = [
    certificate.precision.replace("_", " "),
    `${(bytes / 1e6).toFixed(1)} MB`,
    `${width} × ${height} pixels`,
  ];
  if (first.comparison) {
    const { top1_agreement: agreement, num_images: count } = first.comparison;
    const share = `${Number((100 * agreement).toFixed(1))} %`;
    facts.push(`agrees with its model on ${share} of ${count} images`);
  }
  const parts = certificate.model.split(/(?<=_)/); // where the line may break
  element("title").replaceChildren(...parts.flatMap((part) => [part, make("wbr")]));
  document.title = `${certificate.model} in the browser`;
  element("facts").replaceChildren(...facts.map((fact) => make("li", "", fact)));
  const threads = crossOriginIsolated ? "several threads" : "one thread";
  element("runtime").textContent = `LiteRT.js, WebAssembly, ${threads}`;
}

/** Adds a small picture that calls `onSelect`. */
export function showThumbnail(result, model, onSelect) {
  const canvas = make("canvas");
  paint(canvas, result.view, model.imageSize);
  const button = make("button", "", canvas);
  button.type = "button";
  button.setAttribute("aria-label", result.name);
  button.title = result.name;
  button.addEventListener("click", onSelect);
  element("thumbnails").append(make("li", "", button));
}

/** Shows an image and what a signature says of it; `onChoose` takes another one. */
export function showResult(result, model, signature, onChoose) {
  const view = element("view");
  paint(view, result.view, model.imageSize);
  view.setAttribute("aria-label", `The center of ${result.name}`);
  element("name").textContent = result.name;
  showTop(result.answers[signature].probabilities, model.labels);
  showSpeeds(result.answers, model, signature, onChoose);
}

function showTop(probabilities, labels) {
  const rows = best(probabilities).map((index) => {
    const share = probabilities[index];
    return make(
      "li",
      "",
      make("span", "label", labels[index]),
      make("span", "value", percent(share)),
      bar(share),
    );
  });
  element("top").replaceChildren(...rows);
}

/** The indices of the largest probabilities, the largest first. */
function best(probabilities) {
  return Array.from(probabilities.keys())
    .sort((a, b) => probabilities[b] - probabilities[a])
    .slice(0, TOP);
}

function showSpeeds(answers, { signatures, labels }, chosen, onChoose) {
  const isDial = signatures.length > 1;
  const full = answers[signatures[0].name].latency;
  const slowest = Math.max(...signatures.map(({ name }) => answers[name].latency));
  element("speed-title").textContent = isDial ? "Keep rate and latency" : "Latency";
  element("speed-note").textContent = isDial
    ? "Fewer patches, faster answers. Choose whose answer is shown; the weights are the same."
    : "";
  const focused = document.activeElement?.name === "signature";
  const rows = signatures.map(({ name, keep_rate: rate }) => {
    const { latency, probabilities } = answers[name];
    const radio = make("input");
    Object.assign(radio, { type: "radio", name: "signature", value: name });
    radio.checked = name === chosen;
    radio.addEventListener("change", () => onChoose(name));
    const [index] = best(probabilities);
    return make(
      "label",
      "speed",
      radio,
      make("span", "rate", rate == null ? "Model" : `${Math.round(100 * rate)} %`),
      bar(latency / slowest),
      make("span", "time", milliseconds(latency)),
      make("span", "ratio", isDial ? `${(full / latency).toFixed(1)}×` : ""),
      make("span", "label", `${labels[index]}, ${percent(probabilities[index])}`),
    );
  });
  element("speeds").replaceChildren(...rows);
  if (focused) element("speeds").querySelector(":checked").focus();
}

function bar(share) {
  const made = make("span", "bar", make("span"));
  made.firstChild.style.width = `${100 * share}%`;
  return made;
}

function paint(canvas, view, [height, width]) {
  Object.assign(canvas, { height, width });
  canvas.classList.toggle("sharp", Math.min(height, width) < SHARP_BELOW);
  const context = canvas.getContext("2d");
  const picture = context.createImageData(width, height);
  for (let from = 0, to = 0; from < view.length; to += 4) {
    picture.data.set([view[from++], view[from++], view[from++], 255], to);
  }
  context.putImageData(picture, 0, 0);
}
