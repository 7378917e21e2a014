// One image for both apps: a frontend asks its middleware for each page.
const http = require('http');
const { PORT, VERSION, MODE, MIDDLEWARE } = process.env;

const server = http.createServer(async (request, answer) => {
  if (request.url === '/secret') return answer.end(String(process.env.SECRET));
  if (request.url === '/browser') return answer.end(String(process.env.NEXT_PUBLIC_ALOKAI_MIDDLEWARE_API_URL));
  if (request.url === '/crash') process.exit(3);
  try {
    const said = MIDDLEWARE ? ' with ' + (await (await fetch(MIDDLEWARE)).text()) : '';
    setTimeout(() => answer.end(`${VERSION} ${request.url}${said}`), 20);
  } catch (error) {
    answer.statusCode = 500;
    answer.end(String(error));
  }
});
// A socket that sends back what it gets.
server.on('upgrade', (request, socket) => {
  const key = request.headers['sec-websocket-key'] + '258EAFA5-E914-47DA-95CA-C5AB0DC85B11';
  const accept = require('crypto').createHash('sha1').update(key).digest('base64');
  socket.write('HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n');
  socket.write(`Sec-WebSocket-Accept: ${accept}\r\n\r\n`);
  socket.on('data', (data) => socket.write(data));
  socket.on('error', () => {});
});
process.on('SIGTERM', () => process.exit(0));
console.log(`listening, version ${VERSION}`);
if (MODE === 'dies') {
  console.error('the database is gone');
  process.exit(3);
}
server.listen(MODE === 'wrong port' ? 9999 : PORT);
