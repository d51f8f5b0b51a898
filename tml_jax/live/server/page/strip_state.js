/**
 * What the strip of windows shows, as values.
 *
 * For: `strip_view.js`, the summary that a screen reader reads, and the
 * tests. Not for: painting. Start at `StripState.add`.
 */

const KEPT = 3000; // windows; ten minutes

/** The user's cell, by what the microphone brought. */
const USER_WORDS = {
  absent: "nothing of you arrives",
  silent: "you are silent",
  sound: "you make sound",
};

/** Windows in order, without the ones that are long over. */
export class StripState {
  constructor() {
    this.cells = [];
  }

  /** Takes a `tml.tick`; returns its cell. */
  add(tick) {
    const cell = {
      window: tick.window,
      time: tick.time,
      user: tick.user in USER_WORDS ? tick.user : "absent",
      level: tick.input_level_db ?? -100, // dB of full scale
      decision: tick.decision ?? "quiet",
      isSpeaking: Boolean(tick.is_speaking),
      tick: tick.tick_ms ?? 0,
      waited: tick.waited_ms ?? 0,
      late: tick.late_ms ?? 0,
      missed: Boolean(tick.deadline_missed),
      lost: tick.lost_inputs ?? 0,
    };
    this.cells.push(cell);
    if (this.cells.length > KEPT)
      this.cells.splice(0, this.cells.length - KEPT);
    return cell;
  }

  /** The last `count` cells. */
  last(count) {
    return count > 0 ? this.cells.slice(-count) : [];
  }
}

const ms = (value) => `${Math.round(value)} ms`;

/** One cell in words. */
export function describe(cell) {
  const parts = [
    `Window ${cell.window} at ${cell.time.toFixed(1)} s: ` +
      USER_WORDS[cell.user],
    cell.isSpeaking ? "the model speaks" : "the model is quiet",
    `it decided: ${cell.decision}`,
    `this took ${ms(cell.tick)}`,
    `waited ${ms(cell.waited)} for others`,
  ];
  if (cell.missed) parts.push(`missed its deadline by ${ms(cell.late)}`);
  if (cell.lost) parts.push(`${cell.lost} windows of yours were lost so far`);
  return parts.join("; ") + ".";
}

/** Of so many cells that missed their deadline the page speaks up. */
const SLOW_SHARE = 0.2;
const SLOW_CELLS = 50;

/** What there is to say of a server that is too slow for its run; or "". */
export function slowness(cells) {
  const last = cells.slice(-SLOW_CELLS);
  const missed = last.filter((cell) => cell.missed).length;
  if (last.length < SLOW_CELLS || missed < SLOW_SHARE * SLOW_CELLS) return "";
  return (
    `The server is too slow: ${missed} of the last ${SLOW_CELLS} decisions ` +
    "came late. Some of what you say does not reach the model."
  );
}

/** Cells in one sentence; `windowMs` is the length of one. */
export function summarise(cells, windowMs) {
  const seconds = (test) =>
    ((cells.filter(test).length * windowMs) / 1000).toFixed(1);
  const all = seconds(() => true);
  const missed = cells.filter((cell) => cell.missed).length;
  return (
    `The last ${all} s: you made sound for ` +
    `${seconds((cell) => cell.user === "sound")} s, the model spoke for ` +
    `${seconds((cell) => cell.isSpeaking)} s, both at once for ` +
    `${seconds((cell) => cell.isSpeaking && cell.user === "sound")} s; ` +
    `${missed} deadlines missed.`
  );
}
