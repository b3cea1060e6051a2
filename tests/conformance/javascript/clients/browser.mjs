// Opens headless Chromium on a page and runs one of the page's scenarios.
//
// The page comes from a server of its own, so that everything it asks of the server under test
// crosses origins, as it does for users. Its microphone is a recording.

import { createReadStream } from 'node:fs';
import { createServer } from 'node:http';
import { basename, extname } from 'node:path';
import { fileURLToPath } from 'node:url';
import OpenAI from 'openai';
import { OpenAIRealtimeWS } from 'openai/realtime/ws';
import { chromium } from 'playwright-core';
import { unrecognised } from './agents_events.mjs';
import { EventLog } from './events.mjs';
import { main } from './scenario.mjs';

// Nobody vouches for the server with TLS.
process.env.NODE_TLS_REJECT_UNAUTHORIZED = '0';

const TYPES = { '.html': 'text/html', '.js': 'text/javascript', '.mjs': 'text/javascript' };
const local = (path) => fileURLToPath(new URL(path, import.meta.url));

function file(path, recordings) {
  if (path.startsWith('/recordings/')) return recordings[basename(path)];
  if (path === '/events.mjs') return local('events.mjs');
  if (path.startsWith('/npm/')) return local(`../node_modules/${path.slice('/npm/'.length)}`);
  return local(`browser/${basename(path)}`);
}

async function serve(recordings) {
  const server = createServer((request, response) => {
    const path = file(request.url, recordings);
    const stream = createReadStream(path);
    stream.on('error', () => response.writeHead(404).end());
    stream.on('open', () => {
      response.setHeader('Content-Type', TYPES[extname(path)] ?? 'application/octet-stream');
      stream.pipe(response);
    });
  });
  await new Promise((resolve) => server.listen(0, '127.0.0.1', resolve));
  return { server, origin: `http://127.0.0.1:${server.address().port}` };
}

/** What an application's backend does for its page. */
async function ephemeralKey(baseURL, apiKey, session) {
  const client = new OpenAI({ baseURL, apiKey });
  const expires_after = { anchor: 'created_at', seconds: 60 };
  return client.realtime.clientSecrets.create({ expires_after, session });
}

/** A second connection to a call, as a backend has it: it hears everything, and may say something. */
async function attach(baseURL, apiKey, callID, log) {
  const realtime = new OpenAIRealtimeWS({ callID }, new OpenAI({ baseURL, apiKey }));
  realtime.on('event', (event) => log.add(event));
  realtime.on('error', (error) => log.add({ type: 'failure', message: error.message }));
  await new Promise((resolve) => realtime.socket.on('open', resolve));
  return realtime;
}

await main(async (settings) => {
  const { scenario, browser, baseURL, apiKey, key, session, microphone, recordings, story } =
    settings;
  const secret = key ? { value: key } : await ephemeralKey(baseURL, apiKey, session);
  const { server, origin } = await serve(recordings);
  const chrome = await chromium.launch({
    executablePath: browser,
    args: [
      '--no-sandbox',
      '--ignore-certificate-errors',
      '--autoplay-policy=no-user-gesture-required',
      '--use-fake-device-for-media-stream',
      '--use-fake-ui-for-media-stream',
      // A machine without a network still has a loopback interface to call itself by.
      '--allow-loopback-in-peer-connection',
      ...(microphone ? [`--use-file-for-fake-audio-capture=${microphone}%noloop`] : []),
    ],
  });
  const problems = [];
  try {
    const page = await chrome.newPage();
    page.on('pageerror', (error) => problems.push(String(error)));
    const overheard = new EventLog();
    let sideband;
    await page.exposeFunction('attachBackend', async (callId) => {
      sideband = await attach(baseURL, apiKey, callId, overheard);
    });
    await page.exposeFunction('sendFromBackend', (event) => sideband.send(event));
    await page.goto(`${origin}/page.html`);
    await page.waitForFunction(() => window.scenarios);
    const result = await page.evaluate(
      ([name, settings]) => window.scenarios[name](settings),
      [
        scenario,
        {
          apiKey: secret.value,
          baseURL,
          story,
          callsURL: `${baseURL}/realtime/calls`,
          url: `${baseURL.replace('http', 'ws')}/realtime?model=gpt-realtime`,
          recordings: (recordings ?? []).map((_, index) => `${origin}/recordings/${index}`),
        },
      ],
    );
    const entries = result?.log ?? [];
    const events = entries.filter(([side]) => side === 'server').map(([, event]) => event);
    if (sideband) {
      const { type, event_id } = events.at(-1);
      await overheard.next(type, { where: (event) => event.event_id === event_id, after: 0 });
    }
    const report = { result, unrecognised: unrecognised(events), secret, problems };
    return { ...report, overheard: overheard.events };
  } finally {
    await chrome.close();
    server.close();
  }
});
