// What has been said: turns of the person and of the agent, made of the server's events.
//
// No page and no connection here: events go in, turns come out, so that it can be tried alone.

const TRANSCRIPTION = "conversation.item.input_audio_transcription";

/** A turn: {id, who, stable, tail, text, words, state, startMs, endMs, latencyMs, …}. */
function newTurn(id, who) {
  return {
    id,
    who, // "person" or "agent"
    stable: "",
    tail: "",
    text: null, // the final text, or what there is of it
    failure: null, // why there is no more
    words: [],
    state: "open", // open, final, failed, interrupted, cut (the connection ended first)
    offsetMs: 0, // when its call began, since the first one: later times are in the call's own
    startMs: null,
    endMs: null,
    stoppedAt: null, // wall clock of the server's decision that speech is over
    latencyMs: null, // from that decision to the text, or to the first sound of the answer
    marks: [], // of an answer: {audio_ms, characters} as its words are spoken
    playsFrom: null, // wall clock of the answer's first sound while it plays
    cutAt: null, // characters that were spoken before an interruption
  };
}

/** Keeps the turns in order and says which ones an event has changed. */
export class Turns {
  #turns = new Map();
  #responses = new Map(); // response id → turn id
  #asked = null; // when the last turn of the person ended, for the answer's latency
  #origin = null; // when the first call began
  #offsetMs = 0; // when this one did, since then

  constructor(now = () => performance.now()) {
    this.now = now;
  }

  get all() {
    return [...this.#turns.values()];
  }

  clear() {
    this.#turns.clear();
    this.#responses.clear();
  }

  /** The call is over: what is unfinished stays as it is. Returns the turns that this changed. */
  leave() {
    const open = this.all.filter((turn) => turn.state === "open");
    for (const turn of open) {
      if (turn.who === "agent") {
        turn.cutAt = this.heard(turn);
        turn.state = "interrupted";
      } else {
        turn.text = (turn.stable + turn.tail).trim();
        turn.state = turn.text ? "cut" : "empty";
        if (!turn.text) this.#turns.delete(turn.id);
      }
      turn.playsFrom = null;
    }
    this.#asked = null;
    return open;
  }

  /** Take an event; returns the turn that it changed, or null. */
  take(event) {
    switch (event.type) {
      case "session.created":
        this.#origin ??= this.now();
        this.#offsetMs = Math.round(this.now() - this.#origin);
        return null;
      case "input_audio_buffer.speech_started":
        return this.#change(event.item_id, "person", { startMs: event.audio_start_ms });
      case "input_audio_buffer.speech_stopped":
        this.#asked = this.now();
        return this.#change(event.item_id, "person", {
          endMs: event.audio_end_ms,
          stoppedAt: this.#asked,
        });
      case "input_audio_buffer.committed":
        return this.#committed(event);
      case "tinyvoice.transcription.partial":
        return this.#change(event.item_id, "person", { stable: event.stable, tail: event.tail });
      case "tinyvoice.transcription.words":
        return this.#change(event.item_id, "person", { words: event.words });
      case `${TRANSCRIPTION}.completed`:
        return this.#completed(event);
      case `${TRANSCRIPTION}.failed`:
        return this.#failed(event);
      case "response.output_audio_transcript.delta":
      case "response.output_text.delta":
        return this.#answer(event);
      case "tinyvoice.response.spoken":
        return this.#known(event.item_id, (turn) => turn.marks.push(event));
      case "output_audio_buffer.started":
        return this.#ofResponse(event.response_id, (turn) => {
          if (this.#asked !== null) turn.latencyMs = this.now() - this.#asked;
          this.#asked = null;
          turn.playsFrom = this.now();
        });
      case "output_audio_buffer.stopped":
        return this.#ofResponse(event.response_id, (turn) => {
          turn.playsFrom = null;
          if (turn.state === "open") turn.state = "final";
        });
      case "output_audio_buffer.cleared":
        return this.#ofResponse(event.response_id, (turn) => {
          turn.cutAt = this.heard(turn);
          turn.playsFrom = null;
          turn.state = "interrupted";
        });
      case "response.done":
        return this.#done(event.response);
      default:
        return null;
    }
  }

  /** How many characters of an answer have been spoken by now. */
  heard(turn) {
    if (turn.cutAt !== null) return turn.cutAt;
    if (turn.playsFrom === null) return turn.state === "final" ? turn.stable.length : 0;
    const played = this.now() - turn.playsFrom;
    const spoken = turn.marks.filter((mark) => mark.audio_ms <= played);
    return spoken.at(-1)?.characters ?? 0;
  }

  #turn(id, who) {
    if (!this.#turns.has(id)) {
      this.#turns.set(id, Object.assign(newTurn(id, who), { offsetMs: this.#offsetMs }));
    }
    return this.#turns.get(id);
  }

  #change(id, who, changes) {
    return Object.assign(this.#turn(id, who), changes);
  }

  #known(id, change) {
    const turn = this.#turns.get(id);
    if (turn) change(turn);
    return turn ?? null;
  }

  #ofResponse(id, change) {
    return this.#known(this.#responses.get(id), change);
  }

  #committed(event) {
    const turn = this.#turn(event.item_id, "person");
    turn.stoppedAt ??= this.#asked = this.now();
    return turn;
  }

  #completed(event) {
    const turn = this.#turn(event.item_id, "person");
    const text = event.transcript.trim();
    if (turn.stoppedAt !== null) turn.latencyMs = this.now() - turn.stoppedAt;
    if (!text) this.#turns.delete(turn.id); // a noise, after all
    return Object.assign(turn, { text, stable: text, tail: "", state: text ? "final" : "empty" });
  }

  #failed(event) {
    const turn = this.#turn(event.item_id, "person");
    const text = (turn.stable + turn.tail).trim() || null; // what had been heard until then
    return Object.assign(turn, { text, state: "failed", failure: event.error.message });
  }

  #answer(event) {
    const turn = this.#turn(event.item_id, "agent");
    this.#responses.set(event.response_id, turn.id);
    turn.stable += event.delta;
    turn.text = turn.stable;
    return turn;
  }

  #done(response) {
    return this.#ofResponse(response.id, (turn) => {
      if (response.status === "cancelled") turn.state = "interrupted";
      else if (response.status === "failed") turn.state = "failed";
      else if (turn.playsFrom === null && turn.latencyMs !== null) turn.state = "final";
    });
  }
}

// --- what can be taken along -------------------------------------------------------------------

const spoken = (turns) => turns.filter((turn) => turn.text);

/** Plain text, one turn a paragraph; named where there are two who speak. */
export function asText(turns) {
  const both = turns.some((turn) => turn.who === "agent");
  const name = { person: "You: ", agent: "Agent: " };
  return spoken(turns)
    .map((turn) => (both ? name[turn.who] : "") + turn.text)
    .join("\n");
}

/** SubRip subtitles of what the person said; times are since the first call began. */
export function asSubtitles(turns) {
  return spoken(turns)
    .filter((turn) => turn.who === "person" && turn.startMs !== null)
    .map((turn, index) => {
      const start = turn.offsetMs + (turn.words[0]?.start_ms ?? turn.startMs);
      const spokenUntil = turn.words.at(-1)?.end_ms ?? turn.endMs;
      const end = spokenUntil === null ? start + 1000 : turn.offsetMs + spokenUntil;
      return `${index + 1}\n${timestamp(start)} --> ${timestamp(Math.max(end, start + 1))}\n${turn.text}\n`;
    })
    .join("\n");
}

/** Everything that is known of the turns. */
export function asJson(turns) {
  const kept = spoken(turns).map((turn) => ({
    who: turn.who,
    text: turn.text,
    start_ms: turn.startMs === null ? null : turn.offsetMs + turn.startMs,
    end_ms: turn.endMs === null ? null : turn.offsetMs + turn.endMs,
    words: turn.words.map((word) => ({
      ...word,
      start_ms: turn.offsetMs + word.start_ms,
      end_ms: turn.offsetMs + word.end_ms,
    })),
    interrupted: turn.state === "interrupted",
    latency_ms: turn.latencyMs === null ? null : Math.round(turn.latencyMs),
  }));
  return JSON.stringify(kept, null, 2);
}

function timestamp(milliseconds) {
  const whole = Math.round(milliseconds);
  const part = (divisor, base, digits) =>
    String(Math.floor(whole / divisor) % base).padStart(digits, "0");
  return `${part(3600000, 100, 2)}:${part(60000, 60, 2)}:${part(1000, 60, 2)},${part(1, 1000, 3)}`;
}
