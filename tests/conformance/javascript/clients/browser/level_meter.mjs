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

  /** The highest level over so many seconds. */
  async highest(seconds) {
    let highest = 0;
    for (const end = performance.now() + seconds * 1000; performance.now() < end; ) {
      highest = Math.max(highest, this.level);
      await new Promise((resolve) => setTimeout(resolve, 20));
    }
    return highest;
  }
}
