// The files of an export: NAME.tflite, NAME.labels.txt and NAME.certificate.json.

const FORMAT = 2; // of the certificate

/**
 * Fetches a model and what lies beside it.
 *
 * @param {string} path Where NAME.tflite is, relative to the page.
 * @param {(share: number) => void} onProgress Told how much has come, in [0, 1].
 * @returns {Promise<{content: ArrayBuffer, labels: string[], certificate: object}>}
 */
export async function fetchArtifact(path, onProgress) {
  const url = new URL(path, document.baseURI);
  if (url.origin !== location.origin || !url.pathname.endsWith(".tflite")) {
    throw new Error(
      `\`model\` must be a .tflite file of this server. Received: ${path}`,
    );
  }
  const stem = url.href.replace(/\.tflite$/, "");
  const certificate = await fetchCertificate(`${stem}.certificate.json`);
  const labels = await (await fetched(`${stem}.labels.txt`)).text();
  const content = await withProgress(await fetched(url), certificate.bytes, onProgress);
  await checkDigest(content, certificate.sha256);
  return { content, labels: labels.replace(/\n$/, "").split("\n"), certificate };
}

async function fetched(url) {
  const response = await fetch(url, { cache: "no-cache" });
  if (!response.ok) {
    const { pathname } = new URL(url);
    throw new Error(`There is no ${decodeURI(pathname)} on this server (${response.status})`);
  }
  return response;
}

async function fetchCertificate(url) {
  const response = await fetched(url);
  const certificate = await response.json().catch(() => ({}));
  const cropRatio = certificate?.preprocessing?.crop_ratio;
  if (certificate?.format !== FORMAT || !(cropRatio > 0 && cropRatio <= 1)) {
    throw new Error(`${new URL(url).pathname} is no certificate of format ${FORMAT}`);
  }
  return certificate;
}

/** Reads a response of known size bit by bit. */
async function withProgress(response, bytes, onProgress) {
  const parts = [];
  let received = 0;
  const reader = response.body.getReader();
  for (let part = await reader.read(); !part.done; part = await reader.read()) {
    parts.push(part.value);
    received += part.value.length;
    onProgress(Math.min(received / bytes, 1));
  }
  return await new Blob(parts).arrayBuffer();
}

/** Checks that a file is the certified one, where the browser can: on https, localhost. */
async function checkDigest(content, expected) {
  if (!globalThis.crypto?.subtle) return;
  const digest = new Uint8Array(await crypto.subtle.digest("SHA-256", content));
  const hex = Array.from(digest, (byte) => byte.toString(16).padStart(2, "0")).join("");
  if (hex !== expected) {
    throw new Error("The model is not the file that its certificate is about");
  }
}
