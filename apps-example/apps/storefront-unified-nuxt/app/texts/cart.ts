export const cart = {
  title: "Your cart",
  empty: "Nothing in it yet.",
  textsFrom: "base",
};
