import type { Expectations } from "./contract";

export const expected: Expectations = {
  store: "outlet",
  name: "Acme Outlet",
  headerFrom: "base",
  textsFrom: "outlet",
  brand: "rgb(51, 65, 85)",
  currency: "EUR",
  pages: { "/en/cart": 200, "/en/my-account": 404 },
};
