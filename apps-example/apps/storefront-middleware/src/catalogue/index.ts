import { apiClientFactory } from "@vue-storefront/middleware";
import { api } from "./api";

export const { createApiClient } = apiClientFactory({
  // Products live in memory, so there is no client to set up.
  onCreate: (config) => ({ config, client: {} }),
  api,
});
