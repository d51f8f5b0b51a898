/**
 * The model's sound, from the jitter buffer to the loudspeaker.
 *
 * For: `audio.js`, which loads it. Runs on the audio thread. Takes messages
 * {kind: "push", item, pcm}, {kind: "end"}, {kind: "flush"}, {kind: "close"};
 * posts {kind: "played", seconds, pcm} (what sounded, on the context's clock),
 * {kind: "silent", seconds, wall} once after a flush, and {kind: "report"}
 * four times a second.
 */

import { fromPcm16, toPcm16 } from "./codec.js";
import { JitterBuffer } from "./jitter_buffer.js";
import { Resampler } from "./resampler.js";

const BLOCK = 32; // samples that are read at once: 2 ms at 16 kHz
const POSTED_MS = 200; // of what sounded, in one message
const REPORT_SECONDS = 0.25;

class Playout extends AudioWorkletProcessor {
  constructor({ processorOptions: { rate } }) {
    super();
    this.rate = rate;
    this.buffer = new JitterBuffer(rate);
    this.resampler = new Resampler(rate, sampleRate);
    this.block = new Float32Array(BLOCK);
    this.ready = []; // samples at the context's rate
    this.sounded = []; // samples that are not posted yet
    this.soundedAt = 0; // seconds of the first of them
    this.isWatched = false; // a flush came; when is it silent?
    this.isClosed = false;
    this.nextReport = 0;
    this.port.onmessage = ({ data }) => this.take(data);
  }

  take(message) {
    if (message.kind === "push") {
      this.buffer.push(message.item, fromPcm16(message.pcm));
    } else if (message.kind === "end") {
      this.buffer.end();
    } else if (message.kind === "flush") {
      const thrown = this.buffer.flush();
      this.isWatched = true;
      this.report({ thrown_ms: thrown });
    } else if (message.kind === "close") {
      this.isClosed = true;
    }
  }

  process(_, [output]) {
    const channel = output[0];
    while (this.ready.length < channel.length) {
      const filled = this.buffer.read(this.block);
      this.keep(filled);
      for (const sample of this.resampler.push(this.block)) {
        this.ready.push(sample);
      }
    }
    channel.set(this.ready.splice(0, channel.length));
    for (const other of output.slice(1)) other.set(channel);
    if (this.isWatched && channel.every((sample) => sample === 0)) {
      this.isWatched = false;
      this.port.postMessage({
        kind: "silent",
        seconds: currentTime,
        wall: Date.now(),
      });
    }
    if (currentTime >= this.nextReport) {
      this.nextReport = currentTime + REPORT_SECONDS;
      this.report({});
    }
    return !this.isClosed;
  }

  /** Remembers the first `filled` samples of the block for the download. */
  keep(filled) {
    if (filled && !this.sounded.length) {
      this.soundedAt = currentTime + this.ready.length / sampleRate;
    }
    for (let i = 0; i < filled; i++) this.sounded.push(this.block[i]);
    const isOver = filled < BLOCK || this.sounded.length >= this.most();
    if (!this.sounded.length || !isOver) return;
    const pcm = toPcm16(this.sounded);
    const seconds = this.soundedAt;
    this.sounded = [];
    this.port.postMessage({ kind: "played", seconds, pcm }, [pcm.buffer]);
  }

  most() {
    return (this.rate * POSTED_MS) / 1000;
  }

  report(more) {
    this.port.postMessage({ kind: "report", ...this.buffer.report(), ...more });
  }
}

registerProcessor("playout", Playout);
