// The agents SDK over WebSocket: spoken and written turns, a tool, an interruption.

import { OpenAIRealtimeWebSocket, RealtimeAgent, RealtimeSession, tool } from '@openai/agents-realtime';
import { z } from 'zod';
import { unrecognised } from './agents_events.mjs';
import { EventLog, until } from './events.mjs';
import { Microphone, main } from './scenario.mjs';

const COMPLETED = 'conversation.item.input_audio_transcription.completed';

await main(async ({ url, apiKey, greeting, question, interruption, sum, speed }) => {
  const log = new EventLog();
  const errors = [];
  const called = [];
  const results = [];
  let interruptions = 0;
  let audioBytes = 0;

  const times = tool({
    name: 'times',
    description: 'Multiplies two numbers',
    parameters: z.object({ a: z.number().int(), b: z.number().int() }),
    execute: async ({ a, b }) => {
      called.push({ a, b });
      return String(a * b);
    },
  });
  const agent = new RealtimeAgent({ name: 'Ada', instructions: 'Be brief.', tools: [times] });
  const transport = new OpenAIRealtimeWebSocket({ url });
  const session = new RealtimeSession(agent, { transport });
  transport.on('*', (event) => log.add(event));
  session.on('error', ({ error }) => errors.push(error?.error ?? String(error)));
  session.on('audio', ({ data }) => (audioBytes += data.byteLength));
  session.on('audio_interrupted', () => (interruptions += 1));
  session.on('agent_tool_end', (_context, _agent, { name }, result) =>
    results.push({ name, result }),
  );
  await session.connect({ apiKey });
  await log.next('session.updated', { after: 0 });

  const answered = (status) =>
    log.next('response.done', { where: ({ response }) => response.status === status });
  const microphone = new Microphone((chunk) => {
    const { buffer, byteOffset, byteLength } = chunk;
    session.sendAudio(buffer.slice(byteOffset, byteOffset + byteLength));
  }, speed);

  // A spoken turn; the transcript of what the user said comes into the history by retrieval.
  let done = answered('completed');
  await microphone.hear(greeting);
  await done;

  // The next answer is interrupted while it plays: from here the microphone runs in real time,
  // since the client reckons by the clock how much of the answer was heard.
  const speaking = log.next('response.output_audio.delta');
  await microphone.hear(question);
  const { item_id: interrupted } = await speaking;
  microphone.speed = 1;
  const truncated = log.next('conversation.item.truncated');
  const heard = log.next(COMPLETED);
  await microphone.hear(interruption);
  await truncated;
  microphone.speed = speed;
  const { item_id: interrupting } = await heard;
  await log.next('response.done', {
    where: ({ response }) => response.status === 'completed',
    after: log.events.findIndex((e) => e.type === COMPLETED && e.item_id === interrupting),
  });

  // A tool, called for by voice; then a written turn.
  done = log.next('response.done', {
    where: ({ response }) => response.output.some((item) => item.type === 'message'),
  });
  await microphone.hear(sum);
  await done;
  done = answered('completed');
  session.sendMessage('good night');
  await done;

  await until('all that was said is in the history', () =>
    session.history.every(
      (item) =>
        item.role !== 'user' ||
        item.content.every((part) => part.type !== 'input_audio' || part.transcript),
    ),
  );
  await microphone.close();
  const { history } = session;
  session.close();
  return {
    events: log.events,
    unrecognised: unrecognised(log.events),
    history,
    errors,
    called,
    results,
    interruptions,
    interrupted,
    audioBytes,
  };
});
