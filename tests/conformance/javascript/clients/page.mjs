// Opens a page in headless Chromium and reports what it says on its console, up to what is waited
// for: a value whose JSON matches `until`. An error on the console, or a rejection, fails.
//
// The page's microphone is a recording, over and over again. It comes from a port of its own, so
// that all that it asks of the server crosses origins.

import { createReadStream } from 'node:fs';
import { createServer } from 'node:http';
import { fileURLToPath } from 'node:url';
import { chromium } from 'playwright-core';
import { main } from './scenario.mjs';

function serve(html) {
  const server = createServer((request, response) => {
    if (!request.url.startsWith('/npm/')) {
      response.writeHead(200, { 'Content-Type': 'text/html; charset=utf-8' }).end(html);
      return;
    }
    const path = request.url.slice('/npm/'.length);
    const file = fileURLToPath(new URL(`../node_modules/${path}`, import.meta.url));
    response.setHeader('Content-Type', 'text/javascript');
    createReadStream(file).pipe(response);
  });
  return new Promise((resolve) => server.listen(0, '127.0.0.1', () => resolve(server)));
}

await main(async ({ html, browser, microphone, until }) => {
  const server = await serve(html);
  const chrome = await chromium.launch({
    executablePath: browser,
    args: [
      '--no-sandbox',
      '--autoplay-policy=no-user-gesture-required',
      '--use-fake-device-for-media-stream',
      '--use-fake-ui-for-media-stream',
      // A machine without a network still has a loopback interface to call itself by.
      '--allow-loopback-in-peer-connection',
      ...(microphone ? [`--use-file-for-fake-audio-capture=${microphone}`] : []),
    ],
  });
  const logged = [];
  const wanted = new RegExp(until, 'i');
  try {
    const page = await chrome.newPage();
    const done = new Promise((resolve, reject) => {
      page.on('pageerror', reject);
      async function hear(message) {
        const values = await Promise.all(message.args().map((value) => value.jsonValue()));
        logged.push(values.length === 1 ? values[0] : message.text());
        if (message.type() === 'error') reject(new Error(message.text()));
        if (wanted.test(JSON.stringify(logged.at(-1)))) resolve();
      }
      // What the page still says when all is heard goes down with the browser: its values cannot
      // be read any more, and `reject` is then a word too late, as it should be.
      page.on('console', (message) => hear(message).catch(reject));
    });
    await page.goto(`http://127.0.0.1:${server.address().port}/`);
    await done;
    return { logged };
  } finally {
    await chrome.close();
    server.close();
  }
});
