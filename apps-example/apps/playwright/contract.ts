// What a visitor of a store must find; each store gives its own values in expectations.ts.
export interface Expectations {
  store: string;
  name: string;
  headerFrom: string;
  textsFrom: string;
  /** As the browser computes it. */
  brand: string;
  currency: string;
  /** Paths, and the status each must answer with. */
  pages: Record<string, number>;
}
