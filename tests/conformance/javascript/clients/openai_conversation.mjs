// The official client over TLS: a spoken question, a tool, an answer in audio, errors.

import OpenAI from 'openai';
import { OpenAIRealtimeWS } from 'openai/realtime/ws';
import { EventLog } from './events.mjs';
import { Microphone, main } from './scenario.mjs';

const SET_TIMER = {
  type: 'function',
  name: 'set_timer',
  description: 'Starts a countdown',
  parameters: {
    type: 'object',
    properties: { hours: { type: 'integer' }, minutes: { type: 'integer' } },
    required: ['hours', 'minutes'],
  },
};

await main(async ({ baseURL, apiKey, recording, speed }) => {
  const log = new EventLog();
  const errors = [];
  const realtime = new OpenAIRealtimeWS(
    { model: 'gpt-realtime', options: { rejectUnauthorized: false } },
    new OpenAI({ baseURL, apiKey }),
  );
  realtime.on('event', (event) => log.add(event));
  const send = (event) => {
    log.sent(event);
    realtime.send(event);
  };
  realtime.on('error', ({ error }) => errors.push(error));
  const answered = () => log.next('response.done');

  await log.next('session.created', { after: 0 });
  send({
    type: 'session.update',
    session: {
      type: 'realtime',
      instructions: 'Keep it short.',
      audio: { input: { transcription: { model: 'whisper-1' } } },
      tools: [SET_TIMER],
    },
  });
  await log.next('session.updated', { after: 0 });

  // A question by voice calls the tool, whose output is spoken.
  const microphone = new Microphone(
    (chunk) =>
      send({ type: 'input_audio_buffer.append', audio: chunk.toString('base64') }),
    speed,
  );
  const [call] = (await Promise.all([answered(), microphone.hear(recording)]))[0].response.output;
  await microphone.close();
  send({
    type: 'conversation.item.create',
    item: { type: 'function_call_output', call_id: call.call_id, output: '"it runs"' },
  });
  send({ type: 'response.create' });
  const spoken = await answered();

  // An answer in text, outside the conversation, with metadata.
  const aside = answered();
  send({
    type: 'response.create',
    response: {
      conversation: 'none',
      output_modalities: ['text'],
      metadata: { topic: 'aside' },
      tool_choice: 'none',
      input: [
        { type: 'message', role: 'user', content: [{ type: 'input_text', text: 'good morning' }] },
      ],
    },
  });
  const written = await aside;

  // What goes wrong comes back with the id of what caused it, and the session goes on.
  send({ type: 'response.cancel', event_id: 'cancel_nothing' });
  await log.next('error', { after: 0 });
  send({ type: 'conversation.item.retrieve', item_id: call.id });
  const { item: retrieved } = await log.next('conversation.item.retrieved');
  realtime.close();
  return { log: log.entries, errors, call, spoken, written, retrieved };
});
