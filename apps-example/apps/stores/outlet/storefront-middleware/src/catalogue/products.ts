import type { Product } from "./product";

export const products: Product[] = [
  { id: "mug-b", name: "Mug, second choice", price: { amount: 5, currency: "EUR" } },
];
