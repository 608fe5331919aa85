// Chromium opens WebSockets over the HTTP/2 connection that brought it the page: ARGV is the page's URL, the pipe of everybody, a session cookie.
// It prints a line when they are open, and waits for one before it closes them.
import assert from 'node:assert/strict';
import { once } from 'node:events';
import { writeFileSync } from 'node:fs';
import { chromium } from 'playwright-core';

const [url, pipe, cookie] = process.argv.slice(2);
const browser = await chromium.launch({
  executablePath: '/usr/bin/chromium',
  args: ['--no-sandbox', '--disable-gpu', '--disable-background-networking', '--disable-component-update', '--disable-sync',
    '--ignore-certificate-errors'],
});
try {
  const context = await browser.newContext();
  await context.addCookies(['first=1', cookie, 'last=2'].map((pair) => {
    const [name, value] = pair.split('=');
    return { name, value, url };
  }));
  const page = await context.newPage();
  page.setDefaultTimeout(20_000);
  await page.goto(url);
  const protocol = await page.evaluate(() => performance.getEntriesByType('navigation')[0].nextHopProtocol);
  assert.equal(protocol, 'h2');
  await page.locator('#state[data-state="open"]').waitFor();

  const opened = await page.evaluate(() => new Promise((resolve, reject) => {
    const socket = new WebSocket(`wss://${location.host}/room`, ['v9', 'v1']);
    window.test = { socket, got: [] };
    socket.onmessage = (event) => window.test.got.push(event.data);
    socket.onerror = () => reject(new Error('no WebSocket'));
    socket.onopen = () => resolve({ protocol: socket.protocol, extensions: socket.extensions });
  }));
  assert.deepEqual(opened, { protocol: 'v1', extensions: '' });
  const got = (text) => page.waitForFunction((wanted) => window.test.got.includes(wanted), text);
  const long = 'x'.repeat(300_000);
  for (const text of ['two words', 'grüß dich 😀', long]) {
    await page.evaluate((text) => window.test.socket.send(text), text);
    await got(text);
  }
  writeFileSync(pipe, 'hello everybody\n', { flag: 'a' });
  await got('hello everybody');

  const refused = await page.evaluate(() => new Promise((resolve) => {
    const socket = new WebSocket(`wss://${location.host}/room`, ['bad']);
    socket.onclose = (event) => resolve(event.code);
    socket.onopen = () => socket.close(4001);
  }));
  assert.equal(refused, 1006, 'a subprotocol that was not chosen is no connection');

  console.log('open');
  await once(process.stdin, 'data');
  process.stdin.pause();
  const closed = await page.evaluate(() => new Promise((resolve) => {
    window.test.socket.onclose = (event) => resolve({ code: event.code, clean: event.wasClean });
    window.test.socket.close(4321, 'done');
  }));
  assert.deepEqual(closed, { code: 4321, clean: true });
  console.log('all right');
} finally {
  await browser.close();
}
