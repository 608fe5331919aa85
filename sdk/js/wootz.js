/**
 * Answers WebSocket messages from a Node.js worker that wootz keeps.
 *
 * The worker waits for calls on the listening socket that is its standard input (FastCGI), and answers many at once:
 *
 *     import { run } from 'wootz';
 *
 *     run(async (uri, connection) => `Hello, ${connection.user ?? 'guest'}! You asked for ${uri}.`);
 *
 * What the application returns is the reply: text, bytes, nothing, or an iterable of those (a generator, a stream), each sent at once.
 * console.log() goes to the log of wootz.
 */

import { fstatSync } from 'node:fs';
import { createServer } from 'node:net';

export * as push from './push.js';

const [BEGIN_REQUEST, END_REQUEST, PARAMS, STDIN, STDOUT, STDERR] = [1, 3, 4, 5, 6, 7];
const RESPONDER = 1;

/** More than a record can say; a multiple of 8, so that none needs padding. */
const MAX_CONTENT_BYTES = 65528;

/** wootz sends a whole request at once: a peer that pauses so long is broken. */
const RECEIVE_TIMEOUT_MS = 10_000;

/** Who sent a message, and the message: what a call is told (CGI's variables, by name). */
export class Connection {
  /** The application may set the HTTP status of its reply: 500 and above is a failed call, of which nothing is sent. */
  status = 200;

  /** @param {Record<string, string>} env @param {Buffer} message @param {AbortSignal} signal */
  constructor(env, message, signal) {
    /** Every variable of the call. */
    this.env = env;
    /** The message, byte for byte as the browser sent it. */
    this.message = message;
    /** Aborted when the browser is gone: nobody waits for the reply any more. */
    this.signal = signal;
    /** Unguessable, and the same in all calls of one browser's connection. */
    this.id = env.WOOTZ_CONNECTION ?? '';
    /** @type {string | null} The user's id; null is a guest. */
    this.user = env.REMOTE_USER ?? null;
    /** Why there is this call: message, push, validate, connect or disconnect. */
    this.event = env.WOOTZ_EVENT ?? 'message';
    /** The message where it is a URI, verbatim (`echo/abc`), else the URI of the handshake. */
    this.uri = env.REQUEST_URI ?? '/';
    this.ip = env.REMOTE_ADDR ?? '';
    this.port = Number(env.REMOTE_PORT ?? 0);
    /** @type {Record<string, string>} The handshake's header fields; names in lower case. */
    this.headers = Object.create(null);
    for (const [name, value] of Object.entries(env)) {
      if (name.startsWith('HTTP_')) this.headers[name.slice(5).replaceAll('_', '-').toLowerCase()] = value;
    }
    /** @type {Record<string, string>} The handshake's cookies; the first of equal names counts. */
    this.cookies = parseCookies(this.headers.cookie ?? '');
  }

  /** The message as text. */
  get text() {
    return this.message.toString();
  }
}

/**
 * Answers calls until wootz ends the worker (TERM: running calls are finished).
 *
 * @param {(uri: string, connection: Connection) => unknown} application gives the reply, or a promise of it. An exception is a failed
 *   call: nothing more is sent, the log has it.
 * @param {{ validate?: (ip: string, port: number, connection: Connection) => unknown }} [options] validate says who connects: the
 *   user's id, or `{ user: id, expires: seconds }`, or nothing (undefined, null, '', 0) for a guest, or false for nobody who may connect.
 * @returns {import('node:net').Server} already listening
 */
export function run(application, { validate } = {}) {
  if (!fstatSync(0).isSocket()) {
    throw new Error('standard input is no listening socket: let wootz start this worker (runner = "fastcgi" with a command)');
  }
  const server = createServer((socket) => void new Exchange(socket, application, validate));
  for (const signal of ['SIGTERM', 'SIGINT']) {
    // Running calls hold the process; when the last has ended, nothing does.
    process.on(signal, () => server.listening && server.close(() => process.exit()));
  }
  return server.listen({ fd: 0 });
}

/** What came is no request, or not a whole one. */
class Violation extends Error {}

/** One FastCGI request and its answer, on a connection of its own. Nothing is taken for a request that did not arrive whole. */
class Exchange {
  #socket;
  #application;
  #validate;
  #gone = new AbortController();
  #unread = [];
  #unreadBytes = 0;
  #request = 0;
  /** Which stream of the request is being read. */
  #expected = BEGIN_REQUEST;
  #contents = { [PARAMS]: [], [STDIN]: [] };
  #connection = null;
  /** Whether the browser may have got a part of the reply already, so that a status would come too late. */
  #hasBegun = false;

  constructor(socket, application, validate) {
    [this.#socket, this.#application, this.#validate] = [socket, application, validate];
    socket.setTimeout(RECEIVE_TIMEOUT_MS, () => this.#refuse('the request was cut off'));
    socket.on('data', (chunk) => this.#receive(chunk));
    socket.on('end', () => {
      if (!this.#connection) this.#refuse('the request was cut off');
    });
    socket.on('error', () => {}); // a peer that is gone is told by 'close'
    socket.on('close', () => this.#gone.abort());
  }

  #refuse(reason) {
    console.error(`wootz: no FastCGI request: ${reason}`);
    this.#socket.destroy();
  }

  #receive(chunk) {
    if (this.#connection) return; // a request has nothing more to say
    this.#unread.push(chunk);
    this.#unreadBytes += chunk.length;
    try {
      while (!this.#connection && this.#readRecord());
    } catch (violation) {
      if (!(violation instanceof Violation)) throw violation;
      this.#refuse(violation.message);
    }
  }

  /** Takes one record off what has come; false where it is not all there. */
  #readRecord() {
    if (this.#unreadBytes < 8) return false;
    if (this.#unread[0].length < 8) this.#unread = [Buffer.concat(this.#unread)];
    const header = this.#unread[0];
    if (header[0] !== 1) throw new Violation(`FastCGI version ${header[0]} is unknown`);
    const length = header.readUInt16BE(4);
    const whole = 8 + length + header[6];
    if (this.#unreadBytes < whole) return false;
    const bytes = this.#unread.length === 1 ? header : Buffer.concat(this.#unread);
    this.#unread = [bytes.subarray(whole)];
    this.#unreadBytes -= whole;
    this.#take(bytes[1], bytes.readUInt16BE(2), bytes.subarray(8, 8 + length));
    return true;
  }

  #take(type, request, content) {
    if (type !== this.#expected || (type !== BEGIN_REQUEST && request !== this.#request)) {
      throw new Violation(`record of type ${type} for request ${request} instead of ${this.#expected} for ${this.#request}`);
    }
    if (type === BEGIN_REQUEST) {
      if (content.length !== 8 || content.readUInt16BE(0) !== RESPONDER) throw new Violation('this worker is a responder only');
      this.#request = request;
      this.#expected = PARAMS;
    } else if (content.length > 0) {
      this.#contents[type].push(content);
    } else if (type === PARAMS) {
      this.#expected = STDIN;
    } else {
      this.#begin(parseVariables(Buffer.concat(this.#contents[PARAMS])), Buffer.concat(this.#contents[STDIN]));
    }
  }

  #begin(env, message) {
    if (env.CONTENT_LENGTH && Number(env.CONTENT_LENGTH) !== message.length) {
      throw new Violation(`${env.CONTENT_LENGTH} bytes were announced, ${message.length} came`);
    }
    this.#socket.setTimeout(0);
    this.#contents = null;
    this.#connection = new Connection(env, message, this.#gone.signal);
    this.#answer().catch((error) => {
      if (!this.#gone.signal.aborted) this.#fail(error);
    });
  }

  async #answer() {
    const connection = this.#connection;
    if (connection.event === 'validate') {
      await this.#output(await this.#identity(connection));
    } else {
      const reply = await this.#application(connection.uri, connection);
      const pieces = isPiece(reply) ? [reply] : reply;
      if (!pieces[Symbol.iterator] && !pieces[Symbol.asyncIterator]) throw new TypeError(`a reply is text or bytes, not ${typeof reply}`);
      for await (const piece of pieces) await this.#output(piece);
    }
    this.#end(0);
  }

  async #identity(connection) {
    if (!this.#validate) throw new Error('wootz asks who connects (identity.provider = "application"), but run() was given no validate');
    const user = await this.#validate(connection.ip, connection.port, connection);
    if (user === false) connection.status = 403;
    return typeof user === 'object' && user ? JSON.stringify(user) : user || null;
  }

  /** Sends a part of the reply; resolves when there is room for another. Throws when the browser is gone. */
  async #output(piece) {
    if (!isPiece(piece)) throw new TypeError(`a reply is text or bytes, not ${typeof piece}`);
    this.#gone.signal.throwIfAborted();
    const bytes = typeof piece === 'object' && piece ? Buffer.from(piece.buffer, piece.byteOffset, piece.byteLength) : Buffer.from(String(piece ?? ''));
    if (bytes.length === 0) return; // as a record it would be the end of the output
    const sent = this.#hasBegun ? this.#send(STDOUT, bytes) : this.#send(STDOUT, Buffer.concat([this.#header(), bytes]));
    this.#hasBegun = true;
    if (!sent) {
      const socket = this.#socket;
      await new Promise((resolve) => {
        const done = () => resolve(socket.off('drain', done).off('close', done));
        socket.on('drain', done).on('close', done);
      });
    }
  }

  #fail(error) {
    this.#connection.status = 500;
    this.#send(STDERR, Buffer.from(`${error?.stack ?? error}\n`));
    this.#end(this.#hasBegun ? 1 : 0); // a status says more than an exit status, unless it is too late
  }

  /** Ends the answer. The status is an exit status: with anything but 0, wootz sends nothing (more) of the reply. */
  #end(status) {
    if (!this.#hasBegun) this.#send(STDOUT, this.#header());
    const body = Buffer.alloc(8);
    body.writeUInt32BE(status);
    this.#send(END_REQUEST, body);
    this.#socket.end();
  }

  #header() {
    const { status } = this.#connection;
    return Buffer.from(`${status === 200 ? '' : `Status: ${status}\r\n`}Content-Type: text/plain; charset=utf-8\r\n\r\n`);
  }

  /** @returns {boolean} whether there is room for more */
  #send(type, bytes) {
    let room = true;
    this.#socket.cork();
    for (let start = 0; start < bytes.length; start += MAX_CONTENT_BYTES) {
      const content = bytes.subarray(start, start + MAX_CONTENT_BYTES);
      const header = Buffer.from([1, type, this.#request >> 8, this.#request & 255, content.length >> 8, content.length & 255, 0, 0]);
      this.#socket.write(header);
      room = this.#socket.write(content);
    }
    this.#socket.uncork();
    return room;
  }
}

function isPiece(value) {
  return value == null || ['string', 'number', 'bigint'].includes(typeof value) || value instanceof Uint8Array;
}

function parseCookies(header) {
  const cookies = Object.create(null);
  for (const pair of header.split(';')) {
    const at = pair.indexOf('=');
    const name = pair.slice(0, at).trim();
    if (at > 0 && !(name in cookies)) cookies[name] = decode(pair.slice(at + 1).trim());
  }
  return cookies;
}

function decode(value) {
  try {
    return decodeURIComponent(value);
  } catch {
    return value; // percent signs of its own
  }
}

function parseVariables(bytes) {
  const env = Object.create(null);
  let at = 0;
  // A length below 128 is one byte, a longer one is four with the highest bit set.
  const length = () => (bytes[at] < 128 ? bytes[at++] : (bytes.readUInt32BE((at += 4) - 4) & 0x7fffffff));
  try {
    while (at < bytes.length) {
      const [name, value] = [length(), length()];
      if (bytes.length - at < name + value) throw new RangeError();
      env[bytes.toString('utf8', at, (at += name))] = bytes.toString('utf8', at, (at += value));
    }
  } catch (error) {
    if (!(error instanceof RangeError)) throw error;
    throw new Violation('a variable was cut off');
  }
  return env;
}
