// The official client over TLS: a transcription session whose turns the server detects.

import OpenAI from 'openai';
import { OpenAIRealtimeWS } from 'openai/realtime/ws';
import { EventLog } from './events.mjs';
import { chunks, main } from './scenario.mjs';

await main(async ({ baseURL, apiKey, recordings, speed }) => {
  const log = new EventLog();
  const errors = [];
  const realtime = new OpenAIRealtimeWS(
    { intent: 'transcription', options: { rejectUnauthorized: false } },
    new OpenAI({ baseURL, apiKey }),
  );
  realtime.on('event', (event) => log.add(event));
  const send = (event) => {
    log.sent(event);
    realtime.send(event);
  };
  realtime.on('error', (error) => errors.push(error.message));
  const closed = new Promise((resolve) => realtime.socket.on('close', resolve));

  await log.next('session.created', { after: 0 });
  send({
    type: 'session.update',
    session: {
      type: 'transcription',
      audio: {
        input: {
          format: { type: 'audio/pcm', rate: 24000 },
          transcription: { model: 'gpt-4o-transcribe', language: 'en' },
          turn_detection: { type: 'server_vad', silence_duration_ms: 500 },
        },
      },
      include: ['item.input_audio_transcription.logprobs'],
    },
  });
  await log.next('session.updated', { after: 0 });

  for (const recording of recordings) {
    const completed = log.next('conversation.item.input_audio_transcription.completed');
    for await (const chunk of chunks(recording, speed)) {
      send({ type: 'input_audio_buffer.append', audio: chunk.toString('base64') });
    }
    await completed;
  }
  realtime.close();
  return { log: log.entries, errors, closeCode: await closed };
});
