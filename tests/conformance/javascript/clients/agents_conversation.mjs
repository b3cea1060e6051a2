// The agents SDK over WebSocket: spoken and written turns, a tool, interruptions.

import { OpenAIRealtimeWebSocket, RealtimeAgent, RealtimeSession, tool } from '@openai/agents-realtime';
import { z } from 'zod';
import { unrecognised } from './agents_events.mjs';
import { EventLog, until } from './events.mjs';
import { Loudspeaker, Microphone, main } from './scenario.mjs';

const COMPLETED = 'conversation.item.input_audio_transcription.completed';

await main(async ({ url, apiKey, greeting, question, interruption, sum, story, speed }) => {
  const log = new EventLog();
  const errors = [];
  const called = [];
  const results = [];
  let interruptions = 0;
  const loudspeaker = new Loudspeaker();

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
  session.on('audio', ({ data }) => loudspeaker.play(data.byteLength));
  session.on('audio_interrupted', () => {
    interruptions += 1;
    loudspeaker.stop();
  });
  session.on('agent_tool_end', (_context, _agent, { name }, result) =>
    results.push({ name, result }),
  );
  await session.connect({ apiKey });
  await log.next('session.updated', { after: 0 });

  const answered = (from) =>
    log.next('response.done', {
      after: from,
      where: ({ response: { status, output } }) =>
        status === 'completed' && output.some((item) => item.type === 'message'),
    });
  const microphone = new Microphone((chunk) => {
    const { buffer, byteOffset, byteLength } = chunk;
    session.sendAudio(buffer.slice(byteOffset, byteOffset + byteLength));
  }, speed);

  // A spoken turn. Then one must wait until the answer has been played: the client reckons by the
  // clock how much of it was heard.
  let answer = answered();
  await microphone.hear(greeting);
  await answer;
  await loudspeaker.silent();

  // The next answer is interrupted while it plays, so now the microphone runs in real time.
  const speaking = log.next('response.output_audio.delta');
  await microphone.hear(question);
  const { item_id: interrupted } = await speaking;
  microphone.speed = 1;
  const truncated = log.next('conversation.item.truncated');
  const retrieved = log.next('conversation.item.retrieved', {
    where: ({ item }) => item.id === interrupted,
  });
  const heard = log.next(COMPLETED);
  await microphone.hear(interruption);
  await truncated;
  await retrieved;
  microphone.speed = speed;
  await heard;
  await answered(log.events.findLastIndex((event) => event.type === COMPLETED));
  await loudspeaker.silent();

  // A tool, called for by voice; then a written turn.
  answer = answered();
  await microphone.hear(sum);
  await answer;
  await loudspeaker.silent();
  answer = answered();
  session.sendMessage('good night');
  await answer;

  // An answer that is cancelled while it is being made.
  const cancelled = log.next('response.done');
  const begun = log.next('response.output_audio.delta');
  session.sendMessage(story);
  await begun;
  session.interrupt();
  const { response } = await cancelled;

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
    unrecognised: unrecognised(log.events),
    history,
    errors,
    called,
    results,
    interruptions,
    interrupted,
    cancelled: response,
    audioBytes: loudspeaker.bytes,
  };
});
