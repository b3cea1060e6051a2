// What the page does with its client; the script that opened the page starts one of these.

import {
  OpenAIRealtimeWebRTC,
  OpenAIRealtimeWebSocket,
  RealtimeAgent,
  RealtimeSession,
} from '/npm/@openai/agents-realtime/dist/bundle/openai-realtime-agents.mjs';
import { EventLog, until } from './events.mjs';
import { LevelMeter } from './level_meter.mjs';
import { Mouth } from './mouth.mjs';

const COMPLETED = 'conversation.item.input_audio_transcription.completed';
const LOUD = 0.02; // of full scale: speech is well above, silence well below
const QUIET = 0.001;
const CHUNK_BYTES = 9600; // 200 ms of s16le mono at 24 kHz

// A page has one scenario, and a scenario one connection.
const log = new EventLog();
const errors = [];

// Clients do not tell what they send.
for (const { prototype } of [RTCDataChannel, WebSocket]) {
  const { send } = prototype;
  prototype.send = function (data) {
    log.sent(JSON.parse(data));
    return send.call(this, data);
  };
}

function open(transport) {
  const agent = new RealtimeAgent({ name: 'Ada', instructions: 'Be brief.' });
  const session = new RealtimeSession(agent, { transport });
  transport.on('*', (event) => log.add(event));
  session.on('error', ({ error }) => errors.push(error?.error ?? String(error)));
  return session;
}

/** A call; the browser's microphone says something by itself soon after it is opened. */
async function call({ callsURL, apiKey, story }) {
  const audioElement = document.body.appendChild(document.createElement('audio'));
  const transport = new OpenAIRealtimeWebRTC({ baseUrl: callsURL, audioElement });
  const session = open(transport);
  await session.connect({ apiKey });
  const { callId } = transport;
  const meter = new LevelMeter(audioElement.srcObject);
  const silence = meter.level;

  // What is said is written down and answered, and the answer is heard to its end.
  const { transcript } = await log.next(COMPLETED, { after: 0 });
  await until('the answer is heard', () => meter.level > LOUD);
  await log.next('output_audio_buffer.stopped', { after: 0 });
  await meter.quiet(QUIET);

  // An answer that would go on for a minute stops when it is interrupted.
  session.sendMessage(story);
  await until('the story is heard', () => meter.level > LOUD);
  const cleared = log.next('output_audio_buffer.cleared');
  const truncated = log.next('conversation.item.retrieved');
  session.interrupt();
  const loudForMs = await meter.quiet(QUIET);
  await Promise.all([cleared, truncated]);

  const { history } = session;
  session.close();
  return { log: log.entries, errors, callId, transcript, silence, loudForMs, history };
}

/** A call whose answer is talked over, and to which a backend is attached. */
async function interruptedCall({ callsURL, apiKey, recordings: [question, interruption] }) {
  const mouth = new Mouth();
  const audioElement = document.body.appendChild(document.createElement('audio'));
  const transport = new OpenAIRealtimeWebRTC({
    baseUrl: callsURL,
    audioElement,
    mediaStream: mouth.stream,
  });
  const session = open(transport);
  await session.connect({ apiKey });
  await window.attachBackend(transport.callId);
  const meter = new LevelMeter(audioElement.srcObject);
  const transcripts = [];

  let transcription = log.next(COMPLETED);
  await mouth.say(question);
  transcripts.push((await transcription).transcript);
  await until('the answer is heard', () => meter.level > LOUD);
  const cleared = log.next('output_audio_buffer.cleared');
  const truncated = log.next('conversation.item.truncated');
  transcription = log.next(COMPLETED);
  const stopped = log.next('output_audio_buffer.stopped');
  const talking = mouth.say(interruption);
  await cleared;
  await Promise.all([truncated, talking]);
  transcripts.push((await transcription).transcript);
  await until('the second answer is heard', () => meter.level > LOUD);
  await stopped;

  // The backend asks for an answer of its own.
  const more = log.next('output_audio_buffer.stopped');
  const response = { instructions: 'Say good bye.' };
  await window.sendFromBackend({ type: 'response.create', response });
  await until('the backend makes it speak', () => meter.level > LOUD);
  await more;
  session.close();
  const { history } = session;
  return { log: log.entries, errors, transcripts, history };
}

/** A WebSocket, which gets its key as a subprotocol: a page cannot set headers. */
async function socket({ url, apiKey, recordings: [recording] }) {
  const transport = new OpenAIRealtimeWebSocket({ url });
  const session = open(transport);
  let audioBytes = 0;
  session.on('audio', ({ data }) => (audioBytes += data.byteLength));
  await session.connect({ apiKey });
  const { protocol } = transport.connectionState.websocket;

  const answered = log.next('response.done');
  session.sendAudio(await (await fetch(recording)).arrayBuffer());
  const { response } = await answered;
  const { transcript } = await log.next(COMPLETED, { after: 0 });
  session.close();
  return { log: log.entries, errors, protocol, transcript, audioBytes, response };
}

/** The official client, which gets its key in the same way; the key brings the session's settings. */
async function officialSocket({ baseURL, apiKey, recordings: [recording] }) {
  const { OpenAI } = await import('/npm/openai/index.mjs');
  const { OpenAIRealtimeWebSocket } = await import('/npm/openai/realtime/websocket.mjs');
  const realtime = new OpenAIRealtimeWebSocket(
    { intent: 'transcription' },
    new OpenAI({ baseURL, apiKey, dangerouslyAllowBrowser: true }),
  );
  realtime.on('event', (event) => log.add(event));
  realtime.on('error', (error) => errors.push(error.message));
  await log.next('session.created', { after: 0 });
  const pcm = new Uint8Array(await (await fetch(recording)).arrayBuffer());
  for (let at = 0; at < pcm.length; at += CHUNK_BYTES) {
    const bytes = String.fromCharCode(...pcm.subarray(at, at + CHUNK_BYTES));
    realtime.send({ type: 'input_audio_buffer.append', audio: btoa(bytes) });
  }
  const { transcript } = await log.next(COMPLETED, { after: 0 });
  realtime.close();
  return { log: log.entries, errors, transcript };
}

/** A call with a key that the server does not know. */
async function refusedCall({ callsURL, apiKey }) {
  const session = open(new OpenAIRealtimeWebRTC({ baseUrl: callsURL }));
  const refusal = await session.connect({ apiKey }).catch((error) => error.message);
  return { errors: errors.slice(1), refusal }; // the first tells the same
}

window.scenarios = { call, interruptedCall, socket, officialSocket, refusedCall };
