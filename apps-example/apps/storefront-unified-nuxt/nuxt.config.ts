import { fileURLToPath } from "node:url";

export default defineNuxtConfig({
  compatibilityDate: "2025-11-01",
  telemetry: false,
  devtools: { enabled: false },
  // Said aloud, or a second build goes to node_modules/.cache and reads stale paths from .nuxt.
  buildDir: ".nuxt",
  css: ["@acme/theme/theme.css"],
  alias: {
    // The middleware of the same store: a sibling here and in .out alike. Spelled out in full,
    // since Nuxt reads a relative path from its own .nuxt folder.
    "storefront-middleware/types": fileURLToPath(
      new URL("../storefront-middleware/lib/types", import.meta.url),
    ),
  },
  routeRules: { "/": { redirect: "/en" } },
});
