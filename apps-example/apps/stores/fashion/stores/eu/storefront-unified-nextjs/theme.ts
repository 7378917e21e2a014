import { tokens } from "@acme/theme";

export const theme = { ...tokens, brand: "#1d4ed8" };
