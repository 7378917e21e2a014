import { cart } from "@/texts/cart";

export default function Cart() {
  return (
    <>
      <h1>{cart.title}</h1>
      <p>{cart.empty}</p>
      <p className="provenance">cart texts: from {cart.textsFrom}</p>
    </>
  );
}
