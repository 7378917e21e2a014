import { describe, expect, it } from "vitest";
import { api } from "../src/catalogue/api";
import { products } from "../src/catalogue/products";

// Runs on what is composed for a store: its own products, or those that it inherits.
describe("the catalogue", () => {
  const context = {} as Parameters<typeof api.getProducts>[0];

  it("has every product, each with a price", async () => {
    const all = await api.getProducts(context);
    expect(all).toEqual(products);
    expect(all.length).toBeGreaterThan(0);
    for (const { price } of all) {
      expect(price.amount).toBeGreaterThan(0);
      expect(price.currency).toMatch(/^[A-Z]{3}$/);
    }
  });

  it("finds a product by its id, and none by an id that is not there", async () => {
    const [first] = products;
    expect(await api.getProduct(context, { id: first.id })).toEqual(first);
    expect(await api.getProduct(context, { id: "no such product" })).toBeNull();
  });
});
