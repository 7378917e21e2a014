// What the frontends know about the middleware; they read the built lib/types.d.ts.
import type { ContextualizedApi } from "@vue-storefront/middleware";
import type { api } from "./catalogue/api";

export type { Product } from "./catalogue/product";
export type CatalogueEndpoints = ContextualizedApi<typeof api>;
