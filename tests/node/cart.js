// Chromium in the cart of examples/cart: ARGV is the page's URL with the port of wootz, and a URL that pushes a text to alice.
import assert from 'node:assert/strict';
import { chromium } from 'playwright-core';

const [url, pushing] = process.argv.slice(2);
const browser = await chromium.launch({
  executablePath: '/usr/bin/chromium',
  args: ['--no-sandbox', '--disable-gpu', '--disable-background-networking', '--disable-component-update', '--disable-sync'],
});
try {
  const problems = [];
  const open = async (context) => {
    const page = await context.newPage();
    page.setDefaultTimeout(30_000);
    page.on('pageerror', (error) => problems.push(String(error)));
    await page.goto(url);
    return page;
  };
  const connected = (page) => page.locator('#state', { hasText: /^connected$/ }).waitFor();
  const logIn = async (page, user) => {
    await page.fill('[name=user]', user);
    await page.click('form button');
    await page.locator('h1', { hasText: `Cart of ${user}` }).waitFor();
    await page.goto(url); // the page after a login has another address, without the port
    await connected(page);
  };
  const item = (page, text) => page.locator('#cart li', { hasText: text }).waitFor();

  const alice = await browser.newContext();
  const first = await open(alice);
  await logIn(first, 'alice');
  const second = await open(alice);
  await connected(second);
  const bob = await open(await browser.newContext());
  await logIn(bob, 'bob');

  await first.click('[data-item=tea]');
  for (const tab of [first, second]) await item(tab, '1 × tea');
  await second.click('[data-item=tea]');
  for (const tab of [first, second]) await item(tab, '2 × tea');
  await first.click('[data-item=cake]');
  for (const tab of [first, second]) await item(tab, '1 × cake');

  const pushed = await (await fetch(pushing)).text();
  assert.equal(pushed, '2 of 2', 'PHP under php-fpm, which knows nothing of her session, reaches both tabs');
  for (const tab of [first, second]) await tab.locator('#news', { hasText: 'Free delivery today' }).waitFor();
  assert.equal(await bob.locator('#cart li').count(), 0);
  assert.equal(await bob.textContent('#news'), '');
  assert.deepEqual(problems, []);
  console.log('all right');
} finally {
  await browser.close();
}
