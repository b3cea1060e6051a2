// How loud a stream is, as a page measures it.

/** Level of a media stream; full scale is 1. */
export class LevelMeter {
  #samples;
  #analyser;

  constructor(stream) {
    this.context = new AudioContext();
    this.#analyser = new AnalyserNode(this.context, { fftSize: 2048 });
    this.#samples = new Float32Array(this.#analyser.fftSize);
    this.context.createMediaStreamSource(stream).connect(this.#analyser);
  }

  /** Root of the mean square of the last 2048 samples (43 ms at 48 kHz). */
  get level() {
    this.#analyser.getFloatTimeDomainData(this.#samples);
    const power = this.#samples.reduce((sum, sample) => sum + sample * sample, 0);
    return Math.sqrt(power / this.#samples.length);
  }

  /**
   * Until it has been below this level for half a second; pauses between words are shorter.
   * Returns the milliseconds until it was.
   */
  async quiet(level, seconds = 20) {
    const begin = performance.now();
    let since = begin;
    while (performance.now() - since < 500) {
      if (performance.now() - begin > seconds * 1000) throw new Error(`loud for ${seconds} s`);
      if (this.level > level) since = performance.now();
      await new Promise((resolve) => setTimeout(resolve, 10));
    }
    return since - begin;
  }
}
