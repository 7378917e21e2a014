import type { Expectations } from "./contract";

export const expected: Expectations = {
  store: "base",
  name: "Acme",
  headerFrom: "base",
  textsFrom: "base",
  brand: "rgb(51, 65, 85)",
  currency: "USD",
  pages: { "/en/cart": 200, "/en/gift-cards": 200, "/en/my-account": 200 },
};
