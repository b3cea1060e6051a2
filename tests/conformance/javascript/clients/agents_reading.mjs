// How the agents SDK takes events one by one: what it does not recognise, and what it stumbles over.

import { readFileSync } from 'node:fs';
import { OpenAIRealtimeWebSocket } from '@openai/agents-realtime';
import { unrecognised } from './agents_events.mjs';
import { main } from './scenario.mjs';

/** A socket without a network: it takes everything and says nothing. */
class DeadEnd extends EventTarget {
  send() {}
  close() {}
}

await main(async ({ events: file }) => {
  const events = readFileSync(file, 'utf8').trim().split('\n').map((line) => JSON.parse(line));
  const transport = new OpenAIRealtimeWebSocket({
    createWebSocket: async () => new DeadEnd(),
    skipOpenEventListeners: true,
  });
  transport.on('error', () => {}); // what the server calls an error is none here
  await transport.connect({ apiKey: 'x' });
  const stumbles = [];
  for (const event of events) {
    try {
      transport._onMessage({ data: JSON.stringify(event) });
    } catch (error) {
      stumbles.push(`${JSON.stringify(event)}: ${error}`);
    }
  }
  return {
    unrecognised: events.filter((event) => unrecognised([event]).length > 0),
    stumbles,
    read: events.length,
  };
});
