// The official client's beta module, which speaks the protocol as it was before general release.

import OpenAI from 'openai';
import { OpenAIRealtimeWS } from 'openai/beta/realtime/ws';
import { EventLog } from './events.mjs';
import { Microphone, main } from './scenario.mjs';

await main(async ({ baseURL, apiKey, recording, speed }) => {
  const log = new EventLog();
  const errors = [];
  const realtime = new OpenAIRealtimeWS(
    { model: 'gpt-4o-realtime-preview', options: { rejectUnauthorized: false } },
    new OpenAI({ baseURL, apiKey }),
  );
  realtime.on('event', (event) => log.add(event));
  const send = (event) => {
    log.sent(event);
    realtime.send(event);
  };
  realtime.on('error', (error) => errors.push(error.message));

  await log.next('session.created', { after: 0 });
  send({
    type: 'session.update',
    session: {
      modalities: ['audio', 'text'],
      instructions: 'Keep it short.',
      voice: 'alloy',
      input_audio_format: 'pcm16',
      output_audio_format: 'pcm16',
      input_audio_transcription: { model: 'whisper-1' },
      turn_detection: { type: 'server_vad', threshold: 0.5, silence_duration_ms: 500 },
      temperature: 0.8,
    },
  });
  await log.next('session.updated', { after: 0 });

  const microphone = new Microphone(
    (chunk) =>
      send({ type: 'input_audio_buffer.append', audio: chunk.toString('base64') }),
    speed,
  );
  const answered = log.next('response.done');
  await microphone.hear(recording);
  const { response } = await answered;
  await microphone.close();
  realtime.close();
  return { log: log.entries, errors, response };
});
