// What every client script is made of: settings in, one JSON result out, a microphone and a
// loudspeaker. Knows nothing of any client.

import { readFileSync } from 'node:fs';
import { setTimeout as sleep } from 'node:timers/promises';

const CHUNK_MS = 100;
const BYTES_PER_MS = 48; // s16le mono at 24 kHz
const CHUNK_BYTES = CHUNK_MS * BYTES_PER_MS;

/** Run a scenario with the settings of the command line and print what it returns. */
export async function main(scenario) {
  const result = await scenario(JSON.parse(process.argv[2]));
  process.stdout.write(JSON.stringify(result) + '\n', () => process.exit(0));
}

/** A recording in chunks of 100 ms, `speed` times faster than it was spoken. */
export async function* chunks(recording, speed = 1) {
  const pcm = readFileSync(recording);
  const begin = performance.now();
  for (let at = 0; at < pcm.length; at += CHUNK_BYTES) {
    yield pcm.subarray(at, at + CHUNK_BYTES);
    const due = begin + ((at / CHUNK_BYTES + 1) * CHUNK_MS) / speed;
    await sleep(Math.max(0, due - performance.now()));
  }
}

/** An open microphone: it hears silence, and whatever is played to it. */
export class Microphone {
  #queue = [];
  #open = true;

  /** `speed` times faster than real time; it can be changed at any moment. */
  constructor(send, speed = 1) {
    this.speed = speed;
    this.running = this.#run(send);
  }

  /** Play a recording to the microphone; resolves when all of it was heard. */
  hear(recording) {
    const pcm = readFileSync(recording);
    return new Promise((resolve) => this.#queue.push({ pcm, at: 0, resolve }));
  }

  async close() {
    this.#open = false;
    await this.running;
  }

  async #run(send) {
    let due = performance.now();
    while (this.#open) {
      send(this.#next());
      due += CHUNK_MS / this.speed;
      await sleep(Math.max(0, due - performance.now()));
    }
  }

  #next() {
    const chunk = Buffer.alloc(CHUNK_BYTES);
    const playing = this.#queue[0];
    if (playing) {
      playing.at += playing.pcm.copy(chunk, 0, playing.at);
      if (playing.at >= playing.pcm.length) this.#queue.shift().resolve();
    }
    return chunk;
  }
}

/** Plays nothing, but takes as long as if it did. */
export class Loudspeaker {
  bytes = 0;
  #silentAt = 0;

  play(length) {
    this.bytes += length;
    this.#silentAt = Math.max(this.#silentAt, performance.now()) + length / BYTES_PER_MS;
  }

  /** Forget what has not been played. */
  stop() {
    this.#silentAt = 0;
  }

  /** Until everything it has so far is played. */
  async silent() {
    for (let wait; (wait = this.#silentAt - performance.now()) > 0; ) await sleep(wait);
  }
}
