// Opens a page in a browser, changes sources one after another, and waits until the page shows each
// change. It never reloads the page. Prints one JSON line with the milliseconds of each change, and
// with all errors that the page has shown.
//
// Usage: node edits.cjs <folder with node_modules> <JSON of { url, selector, steps }>
// A step is { write, content } or { remove }, and the text that the selector has to show: { shows }.
const fs = require("node:fs");
const { createRequire } = require("node:module");

const [modules, json] = process.argv.slice(2);
const { chromium } = createRequire(`${modules}/`)("@playwright/test");
const { url, selector, steps } = JSON.parse(json);

const LIMIT = 60_000;
// Error overlays of Next.js and Vite, and the page of the proxy for an app that does not respond.
const OVERLAYS = "[data-nextjs-dialog], vite-error-overlay, [data-alokai-error]";

async function main() {
  const browser = await chromium.launch({
    executablePath: process.env.CHROMIUM_PATH ?? "/usr/bin/chromium",
    args: ["--headless", "--no-sandbox", "--disable-gpu", "--disable-background-networking"],
  });
  const page = await browser.newPage();
  const errors = [];
  page.on("pageerror", (error) => errors.push(error.message));
  page.on("response", (response) => {
    if (response.status() >= 500) errors.push(`${response.status()} ${response.url()}`);
  });
  await page.addInitScript((overlays) => {
    const watch = () => {
      const search = () => {
        if (document.querySelector(overlays)) console.error("an error overlay is visible");
      };
      new MutationObserver(search).observe(document, { childList: true, subtree: true });
    };
    watch();
  }, OVERLAYS);
  page.on("console", (message) => {
    const text = message.text();
    if (text === "an error overlay is visible") errors.push(text);
  });
  await page.goto(url, { timeout: LIMIT, waitUntil: "load" });
  await page.locator(selector).first().waitFor({ timeout: LIMIT });
  // The connection for updates is opened after the page has loaded.
  await page.waitForTimeout(3000);
  const milliseconds = [];
  for (const step of steps) {
    const started = Date.now();
    if (step.remove) fs.rmSync(step.remove);
    else fs.writeFileSync(step.write, step.content);
    const shown = page.waitForFunction(
      ([selector, text]) => document.querySelector(selector)?.textContent.includes(text),
      [selector, step.shows],
      { timeout: LIMIT, polling: 10 },
    );
    try {
      await shown;
      milliseconds.push(Date.now() - started);
    } catch {
      errors.push(`"${step.shows}" was not shown within ${LIMIT / 1000} s`);
      break;
    }
    await page.waitForTimeout(1500);
  }
  console.log(JSON.stringify({ milliseconds, errors }));
  await browser.close();
}

main().catch((error) => {
  console.error(error);
  process.exit(1);
});
