import type { CatalogueEndpoints } from "storefront-middleware/types";

// Read at request time and so without NEXT_PUBLIC_: one image serves every environment.
const url = () => process.env.MIDDLEWARE_URL ?? "http://localhost:4000";

/** Calls the catalogue; `undefined` when the middleware cannot answer. */
export async function catalogue<E extends keyof CatalogueEndpoints>(
  endpoint: E,
  ...args: Parameters<CatalogueEndpoints[E]>
): Promise<Awaited<ReturnType<CatalogueEndpoints[E]>> | undefined> {
  try {
    const response = await fetch(`${url()}/catalogue/${endpoint}`, {
      method: "POST",
      headers: { "Content-Type": "application/json" },
      body: JSON.stringify(args),
      signal: AbortSignal.timeout(3000),
    });
    return response.ok ? await response.json() : undefined;
  } catch {
    return undefined;
  }
}
