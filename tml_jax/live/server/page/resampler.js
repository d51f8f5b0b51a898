/**
 * Streaming change of the sampling rate by a windowed sinc.
 *
 * For: the worklets, whose context runs at the device's rate, while the
 * session has a rate of its own. Not for: files. Start at `Resampler.push`.
 *
 * Output sample n lies at input time n * from / to. The filter is a sinc cut
 * at 0.94 of the lower of the two Nyquist frequencies under a Kaiser window
 * (beta 8: side lobes about 80 dB down), as in J. O. Smith, "Digital Audio
 * Resampling Home Page". Its delay is `HALF` periods of the lower rate: 2 ms
 * at 16 kHz.
 */

const HALF = 32; // zero crossings on each side
const CUT = 0.94;
const BETA = 8;

/** Modified Bessel function of the first kind, order 0, by its series. */
function bessel(x) {
  let term = 1;
  let sum = 1;
  for (let k = 1; term > 1e-12 * sum; k++) {
    term *= (x / (2 * k)) ** 2;
    sum += term;
  }
  return sum;
}

function gcd(a, b) {
  return b ? gcd(b, a % b) : a;
}

/** One row of taps for each place of an output between two inputs. */
function makeTaps(phases, half, scale) {
  const rows = [];
  for (let phase = 0; phase < phases; phase++) {
    const row = new Float32Array(2 * half);
    let sum = 0;
    for (let i = 0; i < 2 * half; i++) {
      const t = i - half + 1 - phase / phases;
      const u = t / half;
      if (Math.abs(u) < 1) {
        const x = Math.PI * scale * t;
        const sinc = x === 0 ? 1 : Math.sin(x) / x;
        row[i] = (sinc * bessel(BETA * Math.sqrt(1 - u * u))) / bessel(BETA);
      }
      sum += row[i];
    }
    for (let i = 0; i < row.length; i++) row[i] /= sum; // silence stays so
    rows.push(row);
  }
  return rows;
}

/** Takes blocks at one rate and gives what they make at another. */
export class Resampler {
  /** Rates in Hz, whole numbers. */
  constructor(from, to) {
    const common = gcd(from, to);
    this.step = from / common; // of an output, in units of 1 / phases input
    this.phases = to / common;
    if (from === to) return;
    const scale = CUT * Math.min(1, to / from);
    this.half = Math.ceil(HALF * Math.max(1, from / to));
    this.taps = makeTaps(this.phases, this.half, scale);
    this.reset();
  }

  /** Forgets what was pushed: what comes next begins after silence. */
  reset() {
    if (this.phases === this.step) return;
    this.kept = new Float32Array(this.half - 1);
    this.place = 0; // of the next output, in 1 / phases, from kept[half - 1]
  }

  /** Takes floats; returns the output samples that they complete. */
  push(floats) {
    if (this.phases === this.step) return floats;
    const input = new Float32Array(this.kept.length + floats.length);
    input.set(this.kept);
    input.set(floats, this.kept.length);
    const { half, phases, step } = this;
    const last = input.length - 2 * half; // first tap of the last output
    const output = new Float32Array(
      Math.max(0, Math.ceil(((last + 1) * phases - this.place) / step)),
    );
    for (let n = 0; n < output.length; n++) {
      const first = Math.floor(this.place / phases);
      const row = this.taps[this.place - first * phases];
      let sum = 0;
      for (let i = 0; i < row.length; i++) sum += row[i] * input[first + i];
      output[n] = sum;
      this.place += step;
    }
    const done = Math.min(Math.floor(this.place / phases), input.length);
    this.kept = input.slice(done);
    this.place -= done * phases;
    return output;
  }
}
