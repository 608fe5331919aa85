// Chromium on the console page: ARGV is the page's URL, the pipe of everybody, the server's directory for the picture.
import assert from 'node:assert/strict';
import { statSync, writeFileSync } from 'node:fs';
import { chromium } from 'playwright-core';

const [url, pipe, picture] = process.argv.slice(2);
const DEADLINE = 20_000;
const browser = await chromium.launch({
  executablePath: '/usr/bin/chromium',
  args: ['--no-sandbox', '--disable-gpu', '--disable-background-networking', '--disable-component-update', '--disable-sync',
    ...(url.startsWith('https:') ? ['--ignore-certificate-errors'] : [])],
});
try {
  const page = await browser.newPage({ viewport: { width: 390, height: 844 }, colorScheme: 'dark' });
  page.setDefaultTimeout(DEADLINE);
  const problems = [];
  page.on('pageerror', (error) => problems.push(String(error)));
  page.on('console', (message) => { if (['error', 'warning'].includes(message.type())) problems.push(message.text()); });
  const requests = [];
  page.on('request', (request) => requests.push(request.url()));
  await page.goto(url);

  const row = (kind, text) => page.locator(`#log .row[data-kind="${kind}"]`, { hasText: text });
  const send = async (message) => { await page.fill('#message', message); await page.press('#message', 'Enter'); };

  await page.locator('#state[data-state="open"]').waitFor();
  assert.match(await page.textContent('#id'), /^[0-9a-f]{32}$/);
  assert.equal(await page.textContent('#user'), 'guest');

  await send('/hello?name=<b>you</b>');
  await row('reply', 'Hello, <b>you</b>!').waitFor();
  assert.match(await row('reply', 'Hello').locator('.meta').textContent(), /round trip .+ ran .+ms/);
  assert.equal(await page.locator('#log b').count(), 0, 'what came from outside is text');

  await send('/fail');
  await row('error', 'exit status 3').waitFor();
  assert.match(await row('error', 'exit status 3').textContent(), /something to say about this/);

  await send('ping');
  await row('reply', 'pong').waitFor();

  writeFileSync(pipe, 'hello everybody\n', { flag: 'a' });
  await row('push', 'hello everybody').waitFor();

  await page.press('#message', 'ArrowUp');
  assert.equal(await page.inputValue('#message'), 'ping');

  // Nothing is cut off at the side of a phone.
  assert.ok(await page.evaluate(() => document.documentElement.scrollWidth <= innerWidth));
  const [red, green, blue] = (await page.evaluate(() => getComputedStyle(document.body).backgroundColor)).match(/\d+/g).map(Number);
  assert.ok(red + green + blue < 3 * 64, `dark is dark: ${[red, green, blue]}`);
  await page.screenshot({ path: picture });
  assert.ok(statSync(picture).size > 10_000, 'the picture shows something');

  await page.click('#toggle');
  await page.locator('#state[data-state="closed"]').waitFor();
  await page.click('#toggle');
  await page.locator('#state[data-state="open"]').waitFor();
  await send('/hello?name=again');
  await row('reply', 'Hello, again!').waitFor();

  const host = new URL(url).host;
  assert.deepEqual(requests.filter((request) => !request.startsWith('data:') && new URL(request).host !== host), [], 'no network');
  assert.deepEqual(problems, []);
  console.log('all right');
} finally {
  await browser.close();
}
