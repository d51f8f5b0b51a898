/**
 * The figures under the strip: round trip, jitter, ticks, deadlines.
 *
 * For: `main.js` and the download. Not for: showing them. Pure.
 */

const KEPT = 300; // values that a quantile is taken of

/** A quantile of numbers, by the nearest rank; NaN of none. */
export function quantile(values, share) {
  if (!values.length) return NaN;
  const sorted = [...values].sort((a, b) => a - b);
  return sorted[Math.min(sorted.length - 1, Math.floor(share * sorted.length))];
}

/** Numbers that are kept for a while. */
class Recent {
  constructor() {
    this.values = [];
  }

  add(value) {
    if (!Number.isFinite(value)) return;
    this.values.push(value);
    if (this.values.length > KEPT) this.values.shift();
  }
}

/** All that is counted of one session. */
export class Figures {
  constructor() {
    this.trips = new Recent(); // ms
    this.ticks = new Recent(); // ms
    this.flushes = []; // {asked, rendered_ms, heard_ms}
    this.windows = 0;
    this.missed = 0;
    this.lost = 0;
    this.jitter = 0; // ms
    this.transit = null; // ms of the window before, up to a constant
    this.bytes = { in: 0, out: 0 };
    this.reconnects = 0;
  }

  /** Takes a `tml.tick` that came at `now` ms; `windowMs` is its length. */
  tick(tick, { now, windowMs }) {
    this.windows += 1;
    this.missed += tick.deadline_missed ? 1 : 0;
    this.lost = tick.lost_inputs ?? 0; // so far
    this.ticks.add(tick.tick_ms);
    // Interarrival jitter as RTP has it (RFC 3550, section 6.4.1): windows
    // are made at equal distances, and come at others.
    const transit = now - tick.window * windowMs;
    if (this.transit !== null) {
      this.jitter += (Math.abs(transit - this.transit) - this.jitter) / 16;
    }
    this.transit = transit;
  }

  /** The clock of the session stood still: the next tick begins anew. */
  interrupt() {
    this.transit = null;
  }

  /** What is shown, in ms, counts and shares. */
  summary() {
    return {
      round_trip_ms: quantile(this.trips.values.slice(-5), 0.5),
      jitter_ms: this.jitter,
      tick_ms_p50: quantile(this.ticks.values, 0.5),
      tick_ms_p99: quantile(this.ticks.values, 0.99),
      flush_ms_last: this.flushes.at(-1)?.heard_ms ?? NaN,
      windows: this.windows,
      deadlines_missed: this.missed,
      lost_inputs: this.lost,
      bytes_in: this.bytes.in,
      bytes_out: this.bytes.out,
      reconnects: this.reconnects,
    };
  }
}
