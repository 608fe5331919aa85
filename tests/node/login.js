// Chromium on the page of examples/php: logs in, asks who it is, logs out in another tab. ARGV is the page's URL.
import assert from 'node:assert/strict';
import { chromium } from 'playwright-core';

const [url] = process.argv.slice(2);
const browser = await chromium.launch({
  executablePath: '/usr/bin/chromium',
  args: ['--no-sandbox', '--disable-gpu', '--disable-background-networking', '--disable-component-update', '--disable-sync'],
});
try {
  const context = await browser.newContext();
  context.setDefaultTimeout(30_000);
  const tab = await context.newPage();
  await tab.goto(url);
  const says = (page, text) => page.locator('#log', { hasText: text }).waitFor();
  await says(tab, 'connected');
  await tab.click('[data-uri="/whoami"]');
  await says(tab, 'you are a guest');
  await tab.click('button:text-is("Log in")');
  await tab.locator('h1', { hasText: 'Hello, alice' }).waitFor();
  // The login's redirect leads to the page without its query.
  await tab.goto(url);
  await says(tab, 'connected');
  await tab.click('[data-uri="/whoami"]');
  await says(tab, 'you are alice');

  const other = await context.newPage();
  await other.goto(new URL('/logout', url).href);
  await says(tab, 'closed, 4401');
  await tab.goto(url);
  await says(tab, 'connected');
  await tab.click('[data-uri="/whoami"]');
  await says(tab, 'you are a guest');
  assert.equal(await tab.textContent('h1'), 'Hello, guest');
  console.log('all right');
} finally {
  await browser.close();
}
