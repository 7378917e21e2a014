export const store = {
  id: "outlet",
  name: "Acme Outlet",
  welcome: "Last pieces",
  textsFrom: "outlet",
};
