import type { Expectations } from "./contract";

export const expected: Expectations = {
  store: "eu",
  name: "Acme EU",
  headerFrom: "fashion",
  textsFrom: "eu",
  brand: "rgb(29, 78, 216)",
  currency: "EUR",
  pages: { "/en/cart": 200, "/en/gift-cards": 404, "/en/my-account": 404, "/en/pickup": 404 },
};
