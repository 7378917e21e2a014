import type { Product } from "./product";

export const products: Product[] = [
  { id: "coat", name: "Wool coat", price: { amount: 220, currency: "EUR" } },
  { id: "scarf", name: "Silk scarf", price: { amount: 55, currency: "EUR" } },
];
