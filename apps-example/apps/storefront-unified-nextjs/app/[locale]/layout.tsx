import type { CSSProperties, ReactNode } from "react";
import type { Metadata } from "next";
import { notFound } from "next/navigation";
import "@acme/theme/theme.css";
import { Header } from "@/components/Header";
import { store } from "@/texts/store";
import { theme } from "@/theme";

export const metadata: Metadata = { title: store.name, icons: "/logo.svg" };

const locales = ["en", "de"];

interface Props {
  children: ReactNode;
  params: Promise<{ locale: string }>;
}

export default async function Layout({ children, params }: Props) {
  const { locale } = await params;
  if (!locales.includes(locale)) notFound();

  return (
    <html lang={locale} style={{ "--brand": theme.brand } as CSSProperties}>
      <body>
        <Header locale={locale} />
        <main>{children}</main>
      </body>
    </html>
  );
}
