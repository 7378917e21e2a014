import { expect, test } from "@playwright/test";
import { expected } from "../expectations";

test("the header is the store's", async ({ page }) => {
  await page.goto("/en");
  const header = page.locator("header");
  await expect(header).toHaveAttribute("data-store", expected.store);
  await expect(header.getByRole("link").first()).toHaveText(expected.name);
  await expect(header).toHaveCSS("background-color", expected.brand);
});

test("each file comes from its layer", async ({ page }) => {
  await page.goto("/en");
  const line = `header: from ${expected.headerFrom}; texts: from ${expected.textsFrom}`;
  await expect(page.locator(".provenance")).toHaveText(line);

  await page.goto("/en/cart");
  await expect(page.getByText("cart texts: from base")).toBeVisible();
});

test("products come from the store's middleware", async ({ page }) => {
  await page.goto("/en");
  await expect(page.locator("[data-product]").first()).toContainText(expected.currency);
});

for (const [path, status] of Object.entries(expected.pages)) {
  test(`${path} answers ${status}`, async ({ request }) => {
    expect((await request.get(path)).status()).toBe(status);
  });
}
