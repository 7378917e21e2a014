import { store } from "@/texts/store";

export function Header({ locale }: { locale: string }) {
  return (
    <>
      <header data-store={store.id}>
        <img src="/logo.svg" alt="" width={24} height={24} />
        <a href={`/${locale}`}>{store.name}</a>
        <a href={`/${locale}/cart`}>Cart</a>
      </header>
      <p className="provenance">header: from base; texts: from {store.textsFrom}</p>
    </>
  );
}
