import { tokens } from "@acme/theme";

export const theme = tokens;
