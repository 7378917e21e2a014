export const store = {
  id: "base",
  name: "Acme",
  welcome: "Things we sell",
  textsFrom: "base",
};
