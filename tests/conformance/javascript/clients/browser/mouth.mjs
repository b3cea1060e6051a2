// A media stream that says what it is told to, and is silent otherwise.

export class Mouth {
  #context = new AudioContext();
  #destination = this.#context.createMediaStreamDestination();

  get stream() {
    return this.#destination.stream;
  }

  /** Say a recording; resolves when it has been said. */
  async say(url) {
    const content = await (await fetch(url)).arrayBuffer();
    const buffer = await this.#context.decodeAudioData(content);
    const source = new AudioBufferSourceNode(this.#context, { buffer });
    source.connect(this.#destination);
    return new Promise((resolve) => {
      source.onended = resolve;
      source.start();
    });
  }
}
