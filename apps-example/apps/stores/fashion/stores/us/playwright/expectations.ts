import type { Expectations } from "./contract";

export const expected: Expectations = {
  store: "us",
  name: "Acme US",
  headerFrom: "fashion",
  textsFrom: "us",
  brand: "rgb(190, 18, 60)",
  currency: "USD",
  pages: { "/en/cart": 200, "/en/gift-cards": 404, "/en/my-account": 200, "/en/pickup": 200 },
};
