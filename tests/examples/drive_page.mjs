// Drives the page in headless Chromium as a person would, and prints what it says.
// Usage: node drive_page.mjs '{"chromium": ..., "profile": ..., "visits": [...]}'
// A visit: {url, images}, and, if wanted, "dropped", for images that are dropped, and
// "screenshots", a list of {path, width, dark}.

import { readFileSync } from "node:fs";
import { basename } from "node:path";
import { chromium } from "../../examples/web/node_modules/playwright-core/index.mjs";

const FLAGS = [
  "--headless",
  "--no-sandbox",
  "--disable-gpu",
  "--disable-quic",
  "--no-first-run",
  "--disable-background-networking",
  "--disable-component-update",
  "--disable-sync",
];
const TIMEOUT = 120_000; // milliseconds

const { chromium: executablePath, profile, visits } = JSON.parse(process.argv[2]);
const context = await chromium.launchPersistentContext(profile, {
  executablePath,
  args: FLAGS,
  viewport: { width: 1000, height: 800 },
});
try {
  const said = [];
  for (const task of visits) said.push(await visit(await context.newPage(), task));
  console.log(JSON.stringify(said));
} finally {
  await context.close();
}

async function visit(page, task) {
  page.setDefaultTimeout(TIMEOUT);
  const said = { requests: [], complaints: [], images: [] };
  page.on("request", (request) => said.requests.push(request.url()));
  page.on("pageerror", (error) => said.complaints.push(String(error)));
  page.on("console", (message) => {
    if (message.type() === "error") said.complaints.push(message.text());
  });
  await page.goto(task.url);
  await page.locator("#error:visible, #picker:visible").first().waitFor();
  said.title = await page.locator("#title").textContent();
  said.facts = await page.locator("#facts li").allTextContents();
  said.runtime = await page.locator("#runtime").textContent();
  if (await page.locator("#picker").isVisible()) await classify(page, task, said);
  if (await page.locator("#error").isVisible()) {
    said.error = await page.locator("#error").textContent();
  }
  for (const { path, width, dark } of task.screenshots ?? []) {
    await page.emulateMedia({ colorScheme: dark ? "dark" : "light" });
    await page.setViewportSize({ width, height: 800 });
    await page.waitForTimeout(300); // the bars move
    await page.screenshot({ path, fullPage: true });
  }
  return said;
}

async function classify(page, { images, dropped }, said) {
  await (dropped ? drop : choose)(page, images);
  await page.locator("#status", { hasText: /classified$/ }).waitFor();
  for (const thumbnail of await page.locator("#thumbnails button").all()) {
    await thumbnail.click();
    const answers = {};
    const rates = await page.locator("#speeds input").count();
    await page.locator("#speeds input").first().check();
    await page.locator("#speeds :checked").focus();
    for (let rate = 0; rate < rates; rate++) {
      const row = page.locator(".speed", { has: page.locator(":checked") });
      answers[await row.locator("input").getAttribute("value")] = {
        top: await page.locator("#top .label").allTextContents(),
        shares: await page.locator("#top .value").allTextContents(),
        best: await row.locator(".label").textContent(),
        time: await row.locator(".time").textContent(),
      };
      await page.keyboard.press("ArrowDown"); // from the last to the first
    }
    const name = await page.locator("#name").textContent();
    const view = await page.locator("#view").evaluate((canvas) => canvas.toDataURL());
    said.images.push({ name, answers, view });
  }
}

/** Chooses images with the keyboard: the picker is the first thing that Tab reaches. */
async function choose(page, images) {
  const chooser = page.waitForEvent("filechooser");
  await page.keyboard.press("Tab");
  await page.keyboard.press("Enter");
  await (await chooser).setFiles(images);
}

async function drop(page, images) {
  const files = images.map((path) => [basename(path), [...readFileSync(path)]]);
  const dataTransfer = await page.evaluateHandle((files) => {
    const transfer = new DataTransfer();
    for (const [name, bytes] of files) {
      transfer.items.add(new File([new Uint8Array(bytes)], name));
    }
    return transfer;
  }, files);
  await page.locator("body").dispatchEvent("drop", { dataTransfer });
}
