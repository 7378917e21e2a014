import { tokens } from "@acme/theme";

export const theme = { ...tokens, brand: "#be123c" };
