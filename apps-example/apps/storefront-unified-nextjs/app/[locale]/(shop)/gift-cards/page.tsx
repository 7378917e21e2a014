export default function GiftCards() {
  return <h1>Gift cards</h1>;
}
