// One WebRTC call to the server's Realtime endpoint: microphone out, voice in, events both ways.
//
// It knows the transport and nothing of what the events mean. The call is over once it has told
// `lost` or `close` was called; whoever wants another one makes a new object.

const CHANNEL = "oai-events";
const GATHERING_MS = 2000;
const OPENING_MS = 15000;
const GRACE_MS = 4000; // a network that changes is "disconnected" for a moment

// The server, or a proxy before it, that cannot now and may be able to soon.
const FULL = [429, 503];
const AWAY = [500, 502, 504];

/** A failure that is told to the person: `message` is a sentence for them. */
export class CallError extends Error {
  constructor(message, { retry = false, wantsKey = false } = {}) {
    super(message);
    this.retry = retry;
    this.wantsKey = wantsKey;
  }
}

/** Events: `message` (detail: the server's event), `voice` (detail: MediaStream), `lost`. */
export class Call extends EventTarget {
  #peer = null;
  #channel = null;
  #location = null;
  #grace = 0;
  #over = false;
  #settle = () => {}; // what `open` waits for ends with the call

  constructor({ url, key = "" }) {
    super();
    this.url = url;
    this.key = key;
  }

  /** Connect with the microphone's track; resolves when events can be sent, or the call is over. */
  async open(track, stream) {
    const peer = new RTCPeerConnection({ iceServers: [] });
    this.#peer = peer;
    peer.addTrack(track, stream);
    peer.addEventListener("track", (event) => this.#tell("voice", event.streams[0]));
    peer.addEventListener("connectionstatechange", () => this.#watch());
    const channel = peer.createDataChannel(CHANNEL, { ordered: true });
    this.#channel = channel;
    channel.addEventListener("message", (event) => this.#tell("message", JSON.parse(event.data)));
    channel.addEventListener("close", () => this.#lose());
    const opened = new Promise((resolve) => {
      this.#settle = resolve;
      channel.addEventListener("open", resolve);
    });
    try {
      await this.#negotiate(peer);
    } catch (error) {
      if (!this.#over) throw error; // a peer that was closed takes no more descriptions
    }
    if (this.#over) return;
    await inTime(
      opened,
      OPENING_MS,
      "The server answered, but no connection came about: a firewall may be in the way.",
    );
  }

  /** Send an event; it is dropped where the call is over. */
  send(event) {
    if (this.#channel?.readyState === "open") this.#channel.send(JSON.stringify(event));
  }

  /** Hang up. */
  close() {
    if (this.#over) return;
    this.#over = true;
    clearTimeout(this.#grace);
    this.#hangUp();
    this.#channel?.close();
    this.#peer?.close();
    this.#settle();
  }

  /** Statistics of the connection, for the curious. */
  async statistics() {
    return this.#peer ? [...(await this.#peer.getStats()).values()] : [];
  }

  #headers(more = {}) {
    return this.key ? { ...more, Authorization: `Bearer ${this.key}` } : more;
  }

  /** Have the server forget the call now; by itself it would take it some seconds to notice. */
  #hangUp() {
    if (!this.#location) return;
    fetch(`${this.#location}/hangup`, {
      method: "POST",
      headers: this.#headers(),
      keepalive: true,
    }).catch(() => {});
  }

  async #negotiate(peer) {
    await peer.setLocalDescription(await peer.createOffer());
    await gathered(peer);
    if (this.#over) return;
    const answer = await this.#offer(peer.localDescription.sdp);
    if (this.#over) return this.#hangUp(); // close() did not know where
    await peer.setRemoteDescription({ type: "answer", sdp: answer });
  }

  async #offer(sdp) {
    let response;
    try {
      response = await fetch(this.url, {
        method: "POST",
        headers: this.#headers({ "Content-Type": "application/sdp" }),
        body: sdp,
      });
    } catch {
      throw new CallError("The server cannot be reached.", { retry: true });
    }
    if (response.status === 401) {
      const wrong = this.key ? "The server does not know this key." : "This server wants a key.";
      throw new CallError(`${wrong} Enter it in the settings, then start again.`, { wantsKey: true });
    }
    if (FULL.includes(response.status)) {
      throw new CallError("The server is full at the moment.", { retry: true });
    }
    if (AWAY.includes(response.status)) {
      throw new CallError(`The server cannot answer at the moment (${response.status}).`, { retry: true });
    }
    if (!response.ok) throw new CallError(await reason(response));
    this.#location = response.headers.get("Location");
    return response.text();
  }

  #watch() {
    const state = this.#peer.connectionState;
    clearTimeout(this.#grace);
    if (state === "failed" || state === "closed") this.#lose();
    if (state === "disconnected") this.#grace = setTimeout(() => this.#lose(), GRACE_MS);
  }

  #lose() {
    if (this.#over) return;
    this.#over = true;
    clearTimeout(this.#grace);
    this.#peer.close();
    this.#settle();
    this.#tell("lost");
  }

  #tell(name, detail = null) {
    this.dispatchEvent(new CustomEvent(name, { detail }));
  }
}

function gathered(peer) {
  if (peer.iceGatheringState === "complete") return Promise.resolve();
  return new Promise((resolve) => {
    const timer = setTimeout(resolve, GATHERING_MS);
    peer.addEventListener("icegatheringstatechange", () => {
      if (peer.iceGatheringState !== "complete") return;
      clearTimeout(timer);
      resolve();
    });
  });
}

async function inTime(promise, milliseconds, message) {
  let timer;
  const late = new Promise((_, reject) => {
    timer = setTimeout(() => reject(new CallError(message, { retry: true })), milliseconds);
  });
  try {
    return await Promise.race([promise, late]);
  } finally {
    clearTimeout(timer);
  }
}

async function reason(response) {
  try {
    return (await response.json()).error.message;
  } catch {
    return `The server answered with ${response.status}.`;
  }
}
