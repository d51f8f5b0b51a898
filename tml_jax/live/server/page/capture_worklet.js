/**
 * The microphone, block by block, at the session's rate.
 *
 * For: `audio.js`, which loads it. Runs on the audio thread. Posts messages of
 * `chunk` ms: {seconds, pcm, level}; `seconds` is where the first sample lies
 * on the context's clock.
 */

import { decibels, toPcm16 } from "./codec.js";
import { Resampler } from "./resampler.js";

class Capture extends AudioWorkletProcessor {
  constructor({ processorOptions: { rate, chunkMs } }) {
    super();
    this.rate = rate;
    this.chunk = Math.round((rate * chunkMs) / 1000);
    this.resampler = new Resampler(sampleRate, rate);
    this.isOn = true;
    this.isEnded = false;
    this.port.onmessage = ({ data }) => {
      if ("on" in data) this.isOn = data.on;
      if (data.end) this.isEnded = true;
    };
    this.restart();
  }

  /** What comes next does not follow what came before. */
  restart() {
    this.resampler.reset();
    this.start = null; // seconds of the first sample
    this.made = 0; // samples since then
    this.block = new Float32Array(this.chunk);
    this.filled = 0;
  }

  process([input]) {
    if (!this.isOn || !input.length) {
      if (this.start !== null) this.restart();
      return !this.isEnded;
    }
    if (this.start === null) this.start = currentTime;
    for (const sample of this.resampler.push(mix(input))) {
      this.block[this.filled++] = sample;
      if (this.filled === this.chunk) this.post();
    }
    return !this.isEnded;
  }

  post() {
    const pcm = toPcm16(this.block);
    const seconds = this.start + this.made / this.rate;
    this.made += this.chunk;
    this.filled = 0;
    const level = decibels(this.block);
    this.port.postMessage({ seconds, pcm, level }, [pcm.buffer]);
  }
}

/** The mean of all channels. */
function mix(channels) {
  if (channels.length === 1) return channels[0];
  return channels[0].map(
    (_, i) =>
      channels.reduce((sum, each) => sum + each[i], 0) / channels.length,
  );
}

registerProcessor("capture", Capture);
