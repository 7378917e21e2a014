export default function MyAccount() {
  return <h1>My account</h1>;
}
