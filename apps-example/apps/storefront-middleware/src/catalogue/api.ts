import type { IntegrationContext } from "@vue-storefront/middleware";
import type { Product } from "./product";
import { products } from "./products";

export const api = {
  async getProducts(_context: IntegrationContext): Promise<Product[]> {
    return products;
  },

  async getProduct(_context: IntegrationContext, { id }: { id: string }): Promise<Product | null> {
    return products.find((product) => product.id === id) ?? null;
  },
};
