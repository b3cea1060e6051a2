// What the page does with its client; the script that opened the page starts one of these.

import {
  OpenAIRealtimeWebRTC,
  OpenAIRealtimeWebSocket,
  RealtimeAgent,
  RealtimeSession,
} from '/npm/@openai/agents-realtime/dist/bundle/openai-realtime-agents.mjs';
import { EventLog, until } from './events.mjs';
import { LevelMeter } from './level_meter.mjs';

const COMPLETED = 'conversation.item.input_audio_transcription.completed';
const LOUD = 0.02; // of full scale: speech is well above, silence well below
const QUIET = 0.001;
const CHUNK_BYTES = 9600; // 200 ms of s16le mono at 24 kHz

function open(transport) {
  const agent = new RealtimeAgent({ name: 'Ada', instructions: 'Be brief.' });
  const session = new RealtimeSession(agent, { transport });
  const log = new EventLog();
  const errors = [];
  transport.on('*', (event) => log.add(event));
  session.on('error', ({ error }) => errors.push(error?.error ?? String(error)));
  return { session, log, errors };
}

/** A call; the browser's microphone says something by itself soon after it is opened. */
async function call({ callsURL, apiKey }) {
  const audioElement = document.body.appendChild(document.createElement('audio'));
  const transport = new OpenAIRealtimeWebRTC({ baseUrl: callsURL, audioElement });
  const { session, log, errors } = open(transport);
  await session.connect({ apiKey });
  const { callId } = transport;
  const meter = new LevelMeter(audioElement.srcObject);
  const before = meter.level;

  // What is said is written down and answered, and the answer is heard.
  const { transcript } = await log.next(COMPLETED, { after: 0 });
  await log.next('output_audio_buffer.started', { after: 0 });
  await until('the answer is heard', () => meter.level > LOUD);

  // The answer stops when it is interrupted, and stays so.
  const cleared = log.next('output_audio_buffer.cleared');
  session.interrupt();
  await cleared;
  await until('the answer has stopped', () => meter.level < QUIET);
  const afterInterruption = await meter.highest(1);

  // A written turn is answered to its end.
  const done = log.next('response.done', { where: (e) => e.response.status === 'completed' });
  const stopped = log.next('output_audio_buffer.stopped');
  session.sendMessage('good night');
  const loudest = await meter.highest(1);
  await Promise.all([done, stopped]);
  await until('the answer is over', () => meter.level < QUIET);

  const { history } = session;
  session.close();
  const levels = { before, afterInterruption, loudest };
  return { events: log.events, errors, callId, transcript, levels, history };
}

/** A WebSocket, which gets its key as a subprotocol: a page cannot set headers. */
async function socket({ url, apiKey, recordingURL }) {
  const transport = new OpenAIRealtimeWebSocket({ url });
  const { session, log, errors } = open(transport);
  let audioBytes = 0;
  session.on('audio', ({ data }) => (audioBytes += data.byteLength));
  await session.connect({ apiKey });
  const { protocol } = transport.connectionState.websocket;

  const answered = log.next('response.done');
  session.sendAudio(await (await fetch(recordingURL)).arrayBuffer());
  const { response } = await answered;
  const { transcript } = await log.next(COMPLETED, { after: 0 });
  session.close();
  return { events: log.events, errors, protocol, transcript, audioBytes, response };
}

/** The official client, which gets its key in the same way; the key brings the session's settings. */
async function officialSocket({ baseURL, apiKey, recordingURL }) {
  const { OpenAI } = await import('/npm/openai/index.mjs');
  const { OpenAIRealtimeWebSocket } = await import('/npm/openai/realtime/websocket.mjs');
  const log = new EventLog();
  const errors = [];
  const realtime = new OpenAIRealtimeWebSocket(
    { intent: 'transcription' },
    new OpenAI({ baseURL, apiKey, dangerouslyAllowBrowser: true }),
  );
  realtime.on('event', (event) => log.add(event));
  realtime.on('error', (error) => errors.push(error.message));
  await log.next('session.created', { after: 0 });
  const recording = new Uint8Array(await (await fetch(recordingURL)).arrayBuffer());
  for (let at = 0; at < recording.length; at += CHUNK_BYTES) {
    const bytes = String.fromCharCode(...recording.subarray(at, at + CHUNK_BYTES));
    realtime.send({ type: 'input_audio_buffer.append', audio: btoa(bytes) });
  }
  const { transcript } = await log.next(COMPLETED, { after: 0 });
  realtime.close();
  return { events: log.events, errors, transcript };
}

/** The words in which a call with this key is refused. */
async function refusal({ callsURL, apiKey }) {
  const { session } = open(new OpenAIRealtimeWebRTC({ baseUrl: callsURL }));
  return session.connect({ apiKey }).then(
    () => null,
    (error) => error.message,
  );
}

window.scenarios = { call, socket, officialSocket, refusal };
