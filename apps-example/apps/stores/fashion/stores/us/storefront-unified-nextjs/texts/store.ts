export const store = {
  id: "us",
  name: "Acme US",
  welcome: "Fall collection",
  textsFrom: "us",
};
