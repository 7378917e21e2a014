// Only this store has shops to pick things up at: no other layer knows the page.
export default function Pickup() {
  return <h1>Pick up in store</h1>;
}
