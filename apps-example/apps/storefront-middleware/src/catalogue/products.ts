import type { Product } from "./product";

export const products: Product[] = [
  { id: "mug", name: "Mug", price: { amount: 12, currency: "USD" } },
  { id: "tote", name: "Tote bag", price: { amount: 18, currency: "USD" } },
];
