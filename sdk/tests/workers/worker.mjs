// The worker of the tests. usage: node worker.mjs shared [without-validate]
import { execFileSync, spawn } from 'node:child_process';
import { appendFileSync, readdirSync, readlinkSync } from 'node:fs';
import { readFile } from 'node:fs/promises';
import { run } from '../../js/wootz.js';

process.on('exit', () => appendFileSync(`${process.env.TEST_HOME}/ended`, `${process.pid}\n`));
console.log('the worker prints while it starts');
let counter = 0;
let aborted = 0;

async function* stream(fifo) {
  yield 'first\n';
  await readFile(fifo);
  yield Buffer.from('second\n');
}

async function* hold(fifo, connection) {
  connection.signal.addEventListener('abort', () => aborted++);
  yield `${process.pid}\n`;
  await readFile(fifo);
  yield 'released';
}

async function* endless() {
  try {
    for (;;) yield '0123456789abcdef'.repeat(4096);
  } finally {
    aborted++;
  }
}

const routes = {
  '/echo': (_, connection) => connection.message,
  '/print': () => 'printed, returned',
  '/nothing': () => undefined,
  '/number': () => 42,
  '/parts': () => ['one ', Buffer.from('two '), 3],
  '/wrong': () => ({}),
  '/stream': ({ fifo }) => stream(fifo),
  '/hold': ({ fifo }, connection) => hold(fifo, connection),
  '/aborted': () => aborted,
  '/endless': () => endless(),
  '/connection': (_, { id, user, event, uri, ip, port, headers, cookies, text }) => JSON.stringify({ id, user, event, uri, ip, port, headers, cookies, message: text }),
  '/env': (_, { env }) => JSON.stringify(env),
  '/counter': () => ++counter,
  '/big': () => Buffer.from('0123456789abcdef'.repeat(65536)),
  '/chunks': () => Array.from({ length: 65536 }, () => '0123456789abcdef'),
  '/status': ({ is }, connection) => {
    connection.status = Number(is);
    return 'with a status';
  },
  '/throw': () => {
    throw new Error('thrown on purpose');
  },
  '/late-throw': async function* () {
    yield 'half a reply';
    throw new Error('thrown on purpose');
  },
  '/exit': () => process.exit(3),
  '/background': () => spawn('sleep', ['1000'], { stdio: 'ignore', detached: true }).pid,
  '/inherited': () => execFileSync('ls', ['-l', '/proc/self/fd']),
  '/descriptors': () => readdirSync('/proc/self/fd').filter((fd) => link(fd).startsWith('socket:')).length,
  '/pid': () => process.pid,
};

function link(fd) {
  try {
    return readlinkSync(`/proc/self/fd/${fd}`);
  } catch {
    return '';
  }
}

const application = async (uri, connection) => {
  const { pathname, searchParams } = new URL(uri, 'http://localhost');
  return routes[pathname]?.(Object.fromEntries(searchParams), connection) ?? (pathname === '/nothing' ? null : 'no such route');
};

const identities = { alice: 'alice', number: 7, zero: 0, array: { user: 'bob', expires: 60 }, refused: false, true: true };
const validate = (ip, port, connection) => {
  console.log(`asked about ${ip}:${port}`);
  if (connection.cookies.who === 'throw') throw new Error('no database');
  return identities[connection.cookies.who];
};

run(application, process.argv[3] === 'without-validate' ? {} : { validate });
