export const config = {
  integrations: {
    catalogue: {
      // An absolute path: a relative one would depend on the folder the server is started in.
      location: require.resolve("./catalogue"),
      configuration: {},
    },
  },
};
