/**
 * Sends to browsers from any Node.js program: one request on wootz's control socket each.
 *
 *     import { push } from 'wootz';
 *
 *     await push.all('Closing in five minutes');
 *     await push.user(42, 'Your parcel has left');
 *     await push.request(42, '/cart');     // runs /cart as user 42, in each of their connections' sessions
 *     (await push.channel('news', text)).queued;
 *
 * Text is sent as text, bytes as a binary message. Every function gives a receipt `{ reached, queued, dropped, joined?, written? }`
 * or rejects with a PushError; nobody being there to be reached is no error. `{ wait: true }` waits until everything was written out.
 */

import { statSync } from 'node:fs';
import { request as httpRequest } from 'node:http';

/** `socket`: where the server listens; null: WOOTZ_CONTROL, else wootz.sock in $RUNTIME_DIRECTORY, $XDG_RUNTIME_DIR or here. */
export const settings = { socket: null, seconds: 5 };

/** A push that was not taken: the message says why; `status` is the HTTP status where the server answered, else 0. */
export class PushError extends Error {
  constructor(message, { status = 0, cause } = {}) {
    super(message, { cause });
    this.name = 'PushError';
    this.status = status;
  }
}

/** To every connection. */
export const all = (message, options) => send(payload({ all: true }, message), options);

/** To all connections of a user, by the exact id. */
export const user = (id, message, options) => send(payload({ user: String(id) }, message), options);

/** To all connections of a session, by its exact id. */
export const session = (id, message, options) => send(payload({ session: id }, message), options);

/** To one connection. */
export const connection = (id, message, options) => send(payload({ connection: id }, message), options);

/** To the connections in a channel, by its exact name. */
export const channel = (name, message, options) => send(payload({ channel: name }, message), options);

/**
 * Runs a request as its user in each of their connections, and sends there what it prints. `to` is a user, or a target as the API
 * names it: `{ all: true }`, `{ channel: 'news' }`. With `once` it runs once for each user, and all their connections get what it prints.
 */
export const request = (to, uri, { once = false, ...options } = {}) =>
  send({ to: typeof to === 'object' ? to : { user: String(to) }, request: uri, ...(once && { once }) }, options);

/** Puts a connection, or the one that a call (its `Connection`) runs for, into a channel. */
export const join = (name, of) => change('PUT', name, of);

/** Takes a connection, or the one that a call (its `Connection`) runs for, out of a channel. */
export const leave = (name, of) => change('DELETE', name, of);

const payload = (to, message) =>
  typeof message === 'string' ? { to, text: message } : { to, binary: Buffer.from(message).toString('base64') };

async function send(push, { wait = false } = {}) {
  let seconds = settings.seconds;
  if (wait) {
    push = { ...push, wait, deadline: Math.min(60, seconds) };
    seconds += 1; // the server's answer to its own deadline
  }
  return JSON.parse(await ask('POST', '/v1/push', seconds, { body: JSON.stringify(push) }));
}

async function change(method, name, of) {
  const env = of?.env ?? process.env;
  const id = of?.id ?? of ?? env.WOOTZ_CONNECTION;
  if (!id) throw new PushError('this is no call of a connection: name the connection');
  // A call shows its token: then it may change its own connection as any user.
  const token = id === env.WOOTZ_CONNECTION ? env.WOOTZ_TOKEN : undefined;
  const target = `/v1/connections/${encodeURIComponent(id)}/channels/${encodeURIComponent(name)}`;
  await ask(method, target, settings.seconds, { token, path: env.WOOTZ_CONTROL });
}

const isDirectory = (path) => statSync(path, { throwIfNoEntry: false })?.isDirectory() ?? false;

function socketPath() {
  if (process.env.WOOTZ_CONTROL) return process.env.WOOTZ_CONTROL;
  const directories = [process.env.RUNTIME_DIRECTORY, process.env.XDG_RUNTIME_DIR].map((list) => list?.split(':')[0]);
  const directory = directories.find((path) => path && isDirectory(path));
  return directory ? `${directory}/wootz.sock` : 'wootz.sock';
}

function ask(method, path, seconds, { body = '', token, path: ofCall } = {}) {
  const socketFile = settings.socket ?? ofCall ?? socketPath();
  const headers = { 'Content-Type': 'application/json', 'Content-Length': Buffer.byteLength(body) };
  if (token) headers.Authorization = `Bearer ${token}`;
  return new Promise((resolve, reject) => {
    const asked = httpRequest({ socketPath: socketFile, method, path, headers, agent: false }, (answer) => {
      const parts = [];
      answer.on('data', (part) => parts.push(part));
      answer.on('error', (cause) => reject(new PushError(`wootz at ${socketFile}: ${cause.message}`, { cause })));
      answer.on('end', () => {
        clearTimeout(timer);
        const text = Buffer.concat(parts).toString();
        if (answer.statusCode < 300) return resolve(text);
        reject(new PushError(reason(text) ?? `wootz answered ${answer.statusCode}`, { status: answer.statusCode }));
      });
    });
    const timer = setTimeout(() => {
      reject(new PushError(`wootz has not answered within ${seconds} s`));
      asked.destroy();
    }, seconds * 1000);
    asked.on('error', (cause) => {
      clearTimeout(timer);
      const hint = 'name its socket in push.settings.socket or WOOTZ_CONTROL';
      reject(new PushError(`no wootz answers at ${socketFile}: ${cause.message} (${hint})`, { cause }));
    });
    asked.end(body);
  });
}

function reason(text) {
  try {
    return JSON.parse(text).error.message;
  } catch {
    return undefined;
  }
}
