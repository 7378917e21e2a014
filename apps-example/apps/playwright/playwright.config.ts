import { defineConfig } from "@playwright/test";

// The browser is the machine's own: nothing is downloaded.
export default defineConfig({
  testDir: "tests",
  reporter: "list",
  use: {
    browserName: "chromium",
    baseURL: process.env.BASE_URL ?? "http://localhost:3000",
    launchOptions: {
      executablePath: process.env.CHROMIUM_PATH ?? "/usr/bin/chromium",
      args: ["--headless", "--no-sandbox", "--disable-gpu", "--disable-background-networking"],
    },
  },
});
