import type { Product } from "./product";

export const products: Product[] = [
  { id: "coat", name: "Wool coat", price: { amount: 240, currency: "USD" } },
  { id: "scarf", name: "Silk scarf", price: { amount: 60, currency: "USD" } },
];
