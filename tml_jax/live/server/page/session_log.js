/**
 * What a person may take home: sound, video, ticks and transcript.
 *
 * For: the download. Not for: the server's recording. Start at `files`.
 *
 * Both channels lie on the clock of the sound card: the microphone where it
 * was heard, the model where it sounded, gaps and cuts included. Everything is
 * kept in memory, up to `MOST_SAMPLES` and `MOST_IMAGE_BYTES`; what comes
 * after is counted and left out.
 */

import { wav } from "./wav.js";

const MOST_SAMPLES = 3600 * 24000; // of each channel: an hour and more
const MOST_IMAGE_BYTES = 256 << 20;
const MOST_LINES = 200000; // of ticks and of events

const jsonLines = (rows) =>
  rows.map((row) => JSON.stringify(row) + "\n").join("");
const bytesOf = (text) => new TextEncoder().encode(text);

/** One channel: pieces of sound at places. */
class Channel {
  constructor() {
    this.pieces = []; // {at, pcm}
    this.end = 0;
  }

  add(at, pcm) {
    if (at < 0 || at + pcm.length > MOST_SAMPLES) return false;
    this.pieces.push({ at, pcm });
    this.end = Math.max(this.end, at + pcm.length);
    return true;
  }

  samples(length) {
    const all = new Int16Array(length);
    for (const { at, pcm } of this.pieces) all.set(pcm, at);
    return all;
  }
}

/** Collects one session on one page. */
export class SessionLog {
  /** `rate` in Hz, of both channels. */
  constructor(rate) {
    this.rate = rate;
    this.channels = { user: new Channel(), agent: new Channel() };
    this.images = []; // {seconds, source, bytes}
    this.imageBytes = 0;
    this.ticks = [];
    this.lines = []; // {seconds, kind, text, ...}
    this.leftOut = 0;
  }

  /** Sound of "user" or "agent" (Int16Array) that began at `seconds`. */
  sound(who, seconds, pcm) {
    const kept = this.channels[who].add(Math.round(seconds * this.rate), pcm);
    if (!kept) this.leftOut += 1;
  }

  /** A frame of video as it was sent. */
  image(seconds, source, bytes) {
    if (this.imageBytes + bytes.length > MOST_IMAGE_BYTES) {
      this.leftOut += 1;
      return;
    }
    this.imageBytes += bytes.length;
    this.images.push({ seconds, source, bytes });
  }

  /** A `tml.tick`; `seconds` is when it came, on the page's clock. */
  tick(seconds, tick) {
    if (this.ticks.length >= MOST_LINES) this.leftOut += 1;
    else this.ticks.push({ page_seconds: seconds, ...tick });
  }

  /** A line of the transcript. */
  line(seconds, kind, text, more = {}) {
    if (this.lines.length >= MOST_LINES) this.leftOut += 1;
    else this.lines.push({ seconds, kind, text, ...more });
  }

  /** The files of the archive, as {name, bytes}; `session` describes it. */
  files(session) {
    const { user, agent } = this.channels;
    const length = Math.max(user.end, agent.end);
    const both = [user.samples(length), agent.samples(length)];
    const shown = this.lines.map(({ seconds, kind, text }) => {
      const time = seconds.toFixed(1).padStart(7);
      return `${time}  ${kind.padEnd(7)}  ${text.replaceAll(/\s+/g, " ")}\n`;
    });
    const name = (image) =>
      `video/${image.seconds.toFixed(3).padStart(9, "0")}_${image.source}.jpg`;
    const about = {
      ...session,
      sample_rate: this.rate,
      channels: ["user", "agent"],
      clock: "seconds since the page's sound began",
      left_out: this.leftOut,
    };
    return [
      { name: "session.json", bytes: bytesOf(JSON.stringify(about, null, 2)) },
      { name: "conversation.wav", bytes: wav(both, this.rate) },
      { name: "ticks.jsonl", bytes: bytesOf(jsonLines(this.ticks)) },
      { name: "transcript.jsonl", bytes: bytesOf(jsonLines(this.lines)) },
      { name: "transcript.txt", bytes: bytesOf(shown.join("")) },
      ...this.images.map((image) => ({
        name: name(image),
        bytes: image.bytes,
      })),
    ];
  }
}
