import { existsSync } from "node:fs";
import { dirname, join } from "node:path";
import type { NextConfig } from "next";

// The same folder from apps/<app> and from .out/<store>/<app>. Left alone, Next.js takes the
// outermost lock file it sees, which may belong to something around this project.
function projectRoot(from: string): string {
  const above = dirname(from);
  return existsSync(join(from, "package-lock.json")) || above === from ? from : projectRoot(above);
}

const config: NextConfig = {
  outputFileTracingRoot: projectRoot(__dirname),
  // Pictures are served as they are, so sharp and its libvips would ride along for nothing;
  // so would the compiler, which Next.js traces because this file is TypeScript.
  images: { unoptimized: true },
  outputFileTracingExcludes: {
    "*": ["sharp", "@img", "typescript"].map((name) => `**/node_modules/${name}/**`),
  },
  eslint: { ignoreDuringBuilds: true },
  redirects: async () => [{ source: "/", destination: "/en", permanent: false }],
};

export default config;
