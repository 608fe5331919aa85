// WebSocket over HTTP/2 in node: `http2` makes the stream, `ws` speaks on it. ARGV is the URL and the authority; the application gives messages back.
import assert from 'node:assert/strict';
import { once } from 'node:events';
import { readFileSync } from 'node:fs';
import { connect } from 'node:http2';
import WebSocket from 'ws';

const [url, authority] = process.argv.slice(2);
setTimeout(() => { console.error('too slow'); process.exit(1); }, 30_000).unref();

const session = connect(url, { ca: readFileSync(authority), servername: 'localhost' });
const [settings] = await once(session, 'remoteSettings');
assert.equal(settings.enableConnectProtocol, true);

const request = async (headers) => {
  const stream = session.request(headers);
  const [answer] = await once(stream, 'response');
  return [stream, answer];
};

const open = async (path) => {
  const [stream, answer] = await request({
    ':method': 'CONNECT', ':protocol': 'websocket', ':path': path, 'sec-websocket-version': '13',
  });
  assert.equal(answer[':status'], 200);
  // Made for a server it makes no connection of its own; it is a client all the same, and masks.
  const socket = new WebSocket(null, undefined, { closeTimeout: 30_000 });
  socket._isServer = false;
  socket.setSocket(stream, Buffer.alloc(0), { maxPayload: 16 << 20, skipUTF8Validation: false, allowSynchronousEvents: true });
  return socket;
};

const ask = async (socket, message) => {
  socket.send(message);
  const [data, isBinary] = await once(socket, 'message');
  assert.ok(Buffer.from(message).equals(data), `${data.length} bytes`);
  assert.equal(isBinary, typeof message !== 'string');
};

const sockets = await Promise.all(['/a', '/b', '/c'].map(open));
await Promise.all(sockets.map(async (socket, index) => {
  for (const message of ['/hello', 'two words', 'grüß dich 😀', Buffer.from([0, 255]), 'x'.repeat(100_000), Buffer.alloc(1_000_000, 255)]) {
    await ask(socket, message);
  }
  socket.ping(`ping ${index}`);
  const [data] = await once(socket, 'pong');
  assert.equal(String(data), `ping ${index}`);
}));

const [refused, answer] = await request({ ':method': 'GET', ':path': '/' });
assert.equal(answer[':status'], 400);
refused.resume();

await Promise.all(sockets.map(async (socket, index) => {
  socket.close(4000 + index, 'done');
  const [code, reason] = await once(socket, 'close');
  assert.deepEqual([code, String(reason)], [4000 + index, '']);
}));
session.close();
await once(session, 'close');
console.log('all right');
