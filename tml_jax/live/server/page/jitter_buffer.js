/**
 * The jitter buffer: keeps the model's sound until it is due.
 *
 * For: the playout worklet. Not for: the sound card. Pure: time is counted in
 * samples that were read. Start at `read`.
 *
 * A window of sound comes every window, as the server's clock has it. Its
 * first one waits for `target` samples of time, so that the next may be so
 * much late; it waits no longer when the end of the stretch is known. The
 * target grows when the buffer runs dry within a stretch and shrinks slowly
 * while it does not. What lies more than `EXCESS_MS` behind is dropped, oldest
 * first: in a live conversation old sound is worth less than being on time.
 * `flush` throws all of it away at once.
 */

export const FIRST_TARGET_MS = 40;
export const MOST_TARGET_MS = 240;
const GROWTH_MS = 40; // when it ran dry
const SHRINK_MS = 10; // after CALM_MS without
const CALM_MS = 10000;
// More than the target and two windows: the network stood still, and then
// all came at once.
const EXCESS_MS = 600;
const FADE_MS = 4; // of what a flush cuts off: no click

/** A queue of one session's samples. */
export class JitterBuffer {
  /** Rate in Hz. */
  constructor(rate) {
    this.rate = rate;
    this.target = this.samples(FIRST_TARGET_MS);
    this.chunks = []; // {item, floats, at}
    this.size = 0; // samples in chunks
    this.isSounding = false;
    this.waited = 0; // samples of time since there was something to sound
    this.isEnded = true; // no more is to come of this stretch
    this.item = ""; // whose samples were read last
    this.played = 0; // samples of this item
    this.calm = 0; // samples read since it last ran dry
    this.tail = new Float32Array(0); // fading out after a flush
    this.counts = { gaps: 0, dropped: 0, flushes: 0 };
  }

  samples(ms) {
    return Math.round((ms * this.rate) / 1000);
  }

  ms(samples) {
    return (1000 * samples) / this.rate;
  }

  /** Takes floats of the stretch `item`. */
  push(item, floats) {
    if (!floats.length) return;
    this.isEnded = false;
    this.chunks.push({ item, floats, at: 0 });
    this.size += floats.length;
    const excess = this.size - this.target - this.samples(EXCESS_MS);
    if (excess > 0) {
      this.counts.dropped += excess;
      this.take(excess, null);
    }
  }

  /** The stretch has ended: what lies here sounds without waiting. */
  end() {
    this.isEnded = true;
  }

  /** Throws everything away; returns how many ms. */
  flush() {
    const thrown = this.size;
    const count = Math.min(this.samples(FADE_MS), this.size);
    if (this.isSounding && count) {
      const tail = new Float32Array(count);
      this.take(count, tail);
      for (let i = 0; i < count; i++) tail[i] *= 1 - (i + 1) / count;
      this.tail = tail;
    }
    this.chunks = [];
    this.size = 0;
    this.waited = 0;
    this.isSounding = false;
    this.isEnded = true;
    this.counts.flushes += 1;
    return this.ms(thrown);
  }

  /** Fills `out` with the next samples; returns how many are no silence. */
  read(out) {
    let filled = 0;
    if (this.tail.length) {
      filled = Math.min(this.tail.length, out.length);
      out.set(this.tail.subarray(0, filled));
      this.tail = this.tail.slice(filled);
      if (!this.size) {
        out.fill(0, filled);
        return filled;
      }
    }
    if (!this.isSounding && this.size) {
      this.isSounding = this.isEnded || this.waited >= this.target;
      this.waited = this.isSounding ? 0 : this.waited + out.length;
    }
    if (this.isSounding) {
      filled += this.take(out.length - filled, out.subarray(filled));
      this.calm += filled;
      if (filled < out.length) this.ranDry();
    }
    out.fill(0, filled);
    if (this.ms(this.calm) >= CALM_MS) {
      this.calm = 0;
      const least = this.samples(FIRST_TARGET_MS);
      this.target = Math.max(least, this.target - this.samples(SHRINK_MS));
    }
    return filled;
  }

  ranDry() {
    this.isSounding = false;
    if (this.isEnded) return;
    this.counts.gaps += 1;
    this.calm = 0;
    const most = this.samples(MOST_TARGET_MS);
    this.target = Math.min(most, this.target + this.samples(GROWTH_MS));
  }

  /** Takes up to `count` samples off the queue, into `out` if there is one. */
  take(count, out) {
    let taken = 0;
    while (taken < count && this.chunks.length) {
      const chunk = this.chunks[0];
      const left = chunk.floats.length - chunk.at;
      const part = Math.min(left, count - taken);
      if (chunk.item !== this.item) {
        this.item = chunk.item;
        this.played = 0;
      }
      if (out) {
        out.set(chunk.floats.subarray(chunk.at, chunk.at + part), taken);
      }
      this.played += part;
      chunk.at += part;
      taken += part;
      if (part === left) this.chunks.shift();
    }
    this.size -= taken;
    return taken;
  }

  /** Numbers for people and for the server: ms and counts. */
  report() {
    return {
      item: this.item,
      played_ms: this.ms(this.played),
      buffer_ms: this.ms(this.size),
      target_ms: this.ms(this.target),
      gaps: this.counts.gaps,
      dropped_ms: this.ms(this.counts.dropped),
      flushes: this.counts.flushes,
    };
  }
}
