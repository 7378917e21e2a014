import { createServer } from "@vue-storefront/middleware";
import { config } from "./config";

const port = Number(process.env.PORT ?? process.env.MIDDLEWARE_PORT ?? 4000);

async function main() {
  const server = await createServer(config);
  server.listen(port, "0.0.0.0", () => console.info(`middleware listens on ${port}`));
}

main().catch((error) => {
  console.error(error);
  process.exit(1);
});
