import { store } from "@/texts/store";

export function Header({ locale }: { locale: string }) {
  return (
    <>
      <header data-store={store.id}>
        <a href={`/${locale}`}>{store.name}</a>
        <em>fashion</em>
        <a href={`/${locale}/cart`}>Bag</a>
      </header>
      <p className="provenance">header: from fashion; texts: from {store.textsFrom}</p>
    </>
  );
}
