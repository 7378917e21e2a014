export const store = {
  id: "eu",
  name: "Acme EU",
  welcome: "Autumn collection",
  textsFrom: "eu",
};
