import { catalogue } from "@/sdk";
import { store } from "@/texts/store";

// Products come with the request: a build knows no middleware.
export const dynamic = "force-dynamic";

export default async function Home() {
  const products = await catalogue("getProducts");

  return (
    <>
      <h1>{store.welcome}</h1>
      {products ? (
        <ul>
          {products.map(({ id, name, price }) => (
            <li key={id} data-product={id}>
              {name}, {price.amount} {price.currency}
            </li>
          ))}
        </ul>
      ) : (
        <p>The catalogue is resting. Please come back in a minute.</p>
      )}
    </>
  );
}
