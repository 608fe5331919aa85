// An HTTP application of Node's own, as the tests need one: it tells of each request what it saw.
'use strict';
const http = require('node:http');

let connections = 0;
let held; // The answer of /stream, which /continue ends.

const whoIs = { alice: [200, 'alice'], '': [200, ''], forbidden: [403, 'mallory'], unauthorized: [401, 'mallory'], broken: [500, 'mallory'] };

function answer(request, response, body) {
  const status = /^\/status\/(\d+)$/.exec(request.url)?.[1];
  if (request.headers['wootz-event'] === 'validate') {
    const [code, user] = whoIs[/who=(\w+)/.exec(request.headers.cookie ?? '')?.[1] ?? ''];
    return response.writeHead(code).end(user);
  }
  if (status) return response.writeHead(Number(status), { Location: '/elsewhere' }).end(`body of ${status}`);
  if (request.url === '/connections') return response.end(String(connections));
  if (request.url === '/stream') return (held = response).write('one');
  if (request.url === '/continue') { held.end('two'); return response.end('continued'); }
  const { method, url, headers } = request;
  response.setHeader('Content-Type', 'application/json').end(JSON.stringify({ method, url, headers, body }));
}

const server = http.createServer((request, response) => {
  let body = '';
  request.setEncoding('utf8').on('data', (text) => { body += text; }).on('end', () => answer(request, response, body));
});
server.on('connection', () => { connections += 1; });
// A port, or the path of a Unix socket.
server.listen(process.argv[2], '127.0.0.1');
process.on('SIGTERM', () => process.exit(0));
