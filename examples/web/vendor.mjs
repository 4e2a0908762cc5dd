// Copies what the page needs of LiteRT.js to vendor/, so that the page is static.

import { cpSync, mkdirSync, readFileSync, rmSync, writeFileSync } from "node:fs";

// Without relaxed SIMD, with it, and with threads too: LiteRT.js takes the best.
const BUILDS = ["compat_internal", "internal", "threaded_internal"];
const UTILS = '"@litertjs/wasm-utils"'; // a worker has no import map

process.chdir(import.meta.dirname);
const packages = "node_modules/@litertjs";
rmSync("vendor", { recursive: true, force: true });
mkdirSync("vendor/wasm", { recursive: true });
for (const build of BUILDS) {
  for (const kind of ["js", "wasm"]) {
    const file = `wasm/litert_wasm_${build}.${kind}`;
    cpSync(`${packages}/core/${file}`, `vendor/${file}`);
  }
}
const parts = readFileSync(`${packages}/core/dist/index.js`, "utf8").split(UTILS);
if (parts.length !== 2) {
  throw new Error(`LiteRT.js must import ${UTILS} once. Received: ${parts.length - 1}.`);
}
writeFileSync("vendor/litert.js", withoutMap(parts.join('"./wasm-utils.js"')));
const utils = readFileSync(`${packages}/wasm-utils/dist/index.js`, "utf8");
writeFileSync("vendor/wasm-utils.js", withoutMap(utils));

function withoutMap(script) {
  return script.replace(/^\/\/# sourceMappingURL=.*$/m, "");
}
