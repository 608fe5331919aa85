// npm `ws` against wootz: ARGV is the URL and the pipe of everybody. The application gives messages back.
import assert from 'node:assert/strict';
import { once } from 'node:events';
import { writeFileSync } from 'node:fs';
import WebSocket from 'ws';

const [url, pipe] = process.argv.slice(2);
setTimeout(() => { console.error('25 s are over'); process.exit(1); }, 25_000).unref();

const socket = new WebSocket(url); // asks for permessage-deflate
let serverPings = 0;
socket.on('ping', () => { serverPings += 1; }); // and answers by itself
await once(socket, 'open');
assert.equal(socket.extensions, '');

const ask = async (message) => {
  const reply = once(socket, 'message');
  socket.send(message);
  const [data, isBinary] = await reply;
  return isBinary ? data : data.toString();
};
for (const message of ['/hello', 'two words', 'grüß dich 😀', 'x'.repeat(100_000)]) assert.equal(await ask(message), message);
assert.deepEqual(await ask(Buffer.from([0, 255])), Buffer.from([0, 255]));

for (let count = 0; count < 20; count += 1) {
  const pong = once(socket, 'pong');
  socket.ping(`number ${count}`);
  assert.equal((await pong)[0].toString(), `number ${count}`);
}
while (serverPings < 3) await once(socket, 'ping');

const pushed = once(socket, 'message');
writeFileSync(pipe, 'pushed\n', { flag: 'a' });
assert.equal((await pushed)[0].toString(), 'pushed');

const closed = once(socket, 'close');
socket.close(1000, 'done');
assert.equal((await closed)[0], 1000);
console.log('all right');
