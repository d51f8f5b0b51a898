/**
 * The strip of windows on a canvas: who speaks, what was decided, how long it
 * took.
 *
 * For: `main.js`. Not for: what the cells say (`strip_state.js`). Start at
 * `paint`. Rows tell things apart by place and shape, colours only help. The
 * canvas is a slider: arrow keys choose a window, and its words are read.
 */

import { describe, summarise } from "./strip_state.js";

const CELL = 9; // pixels of a window, with the gap
const GAP = 1;
const ROWS = {
  user: [0, 30],
  model: [34, 24],
  decision: [62, 16],
  time: [81, 26],
};
const HEIGHT = 108;
const QUIETEST = -60; // dB of full scale: the lowest bar
const SUMMARY_SECONDS = 10;
/** What a decision is marked with, in its own row. */
const MARKS = { show: "T", draw: "D", call: "C" };
const QUIET_MARK = "·";

/** Paints a StripState. */
export class StripView {
  /** `says` is the element for the words of the chosen window. */
  constructor(canvas, { state, says }) {
    this.canvas = canvas;
    this.state = state;
    this.says = says;
    this.windowMs = 200;
    this.chosen = null; // window number
    this.painted = false;
    this.summarisedAt = 0;
    canvas.addEventListener("keydown", (event) => this.key(event));
    canvas.addEventListener("pointermove", (event) => this.point(event));
    canvas.addEventListener("pointerleave", () => this.choose(null));
    canvas.addEventListener("blur", () => this.choose(null));
    new ResizeObserver(() => this.repaint()).observe(canvas);
    matchMedia("(prefers-color-scheme: dark)").addEventListener(
      "change",
      () => {
        this.palette = null;
        this.repaint();
      },
    );
  }

  /** Begins anew. */
  reset(state) {
    this.state = state;
    this.choose(null);
  }

  /** Paints before the next picture of the screen, once. */
  repaint() {
    if (this.painted) return;
    this.painted = true;
    requestAnimationFrame(() => {
      this.painted = false;
      this.paint();
    });
  }

  get room() {
    return Math.max(1, Math.floor(this.canvas.clientWidth / CELL));
  }

  colours() {
    if (!this.palette) {
      const style = getComputedStyle(this.canvas);
      const value = (name) => style.getPropertyValue(`--${name}`).trim();
      const names = [
        "user",
        "model",
        "faint",
        "line",
        "ink",
        "wrong",
        "time",
        "paper",
      ];
      this.palette = Object.fromEntries(names.map((n) => [n, value(n)]));
    }
    return this.palette;
  }

  paint() {
    const { canvas } = this;
    const ratio = devicePixelRatio || 1;
    const width = canvas.clientWidth;
    canvas.width = Math.round(width * ratio);
    canvas.height = Math.round(HEIGHT * ratio);
    const pen = canvas.getContext("2d");
    pen.scale(ratio, ratio);
    pen.font = "11px ui-monospace, monospace";
    pen.textAlign = "center";
    pen.textBaseline = "middle";
    const cells = this.state.last(this.room);
    const left = width - cells.length * CELL;
    cells.forEach((cell, i) => this.paintCell(pen, cell, left + i * CELL));
    const [top, height] = ROWS.time;
    pen.fillStyle = this.colours().line;
    pen.fillRect(0, top - 1, width, 1); // the deadline
    pen.fillRect(0, top + height, width, 1);
    this.summarise(cells);
  }

  paintCell(pen, cell, x) {
    const colours = this.colours();
    const box = (row, share, colour) => {
      const [top, height] = ROWS[row];
      const tall = Math.max(2, Math.round(share * height));
      pen.fillStyle = colour;
      pen.fillRect(x, top + height - tall, CELL - GAP, tall);
    };
    if (cell.window === this.chosen) {
      pen.fillStyle = colours.faint;
      pen.fillRect(x - GAP, 0, CELL + GAP, HEIGHT);
    }
    const loud = Math.min(1, Math.max(0, 1 - cell.level / QUIETEST));
    if (cell.user === "sound") box("user", Math.max(0.15, loud), colours.user);
    if (cell.user === "silent") box("user", 0.06, colours.user);
    if (cell.user === "absent") mark(pen, "×", x, ROWS.user, colours.wrong);
    box("model", cell.isSpeaking ? 1 : 0.06, colours.model);
    const name = MARKS[cell.decision] ?? (cell.isSpeaking ? "S" : QUIET_MARK);
    mark(pen, name, x, ROWS.decision, colours.ink);
    const share = Math.min(1, cell.tick / this.windowMs);
    box(
      "time",
      cell.missed ? 1 : share,
      cell.missed ? colours.wrong : colours.time,
    );
    if (cell.missed) mark(pen, "!", x, ROWS.time, colours.paper);
  }

  /** Tells a screen reader what the picture shows, seldom. */
  summarise(cells) {
    const now = performance.now();
    const due = this.summarisedAt + 1000 * SUMMARY_SECONDS;
    const { canvas } = this;
    const last = cells.at(-1);
    if (!last) return;
    canvas.setAttribute("aria-valuemin", String(cells[0].window));
    canvas.setAttribute("aria-valuemax", String(last.window));
    if (this.chosen !== null || (this.summarisedAt && now < due)) return;
    this.summarisedAt = now;
    const count = Math.round((1000 * SUMMARY_SECONDS) / this.windowMs);
    canvas.setAttribute("aria-valuenow", String(last.window));
    canvas.setAttribute(
      "aria-valuetext",
      summarise(this.state.last(count), this.windowMs),
    );
  }

  choose(window) {
    const cell = this.state.cells.find((each) => each.window === window);
    this.chosen = cell ? window : null;
    this.says.textContent = cell ? describe(cell) : "";
    if (cell) {
      this.canvas.setAttribute("aria-valuenow", String(window));
      this.canvas.setAttribute("aria-valuetext", describe(cell));
    }
    this.repaint();
  }

  point({ offsetX }) {
    const cells = this.state.last(this.room);
    const left = this.canvas.clientWidth - cells.length * CELL;
    this.choose(cells[Math.floor((offsetX - left) / CELL)]?.window ?? null);
  }

  key(event) {
    const cells = this.state.last(this.room);
    if (!cells.length) return;
    const last = cells.at(-1).window;
    const from = this.chosen ?? last;
    const steps = { ArrowLeft: -1, ArrowDown: -1, ArrowRight: 1, ArrowUp: 1 };
    let to = null;
    if (event.key in steps)
      to = this.chosen === null ? last : from + steps[event.key];
    else if (event.key === "Home") to = cells[0].window;
    else if (event.key === "End") to = last;
    else if (event.key === "Escape") this.choose(null);
    if (to === null) return;
    event.preventDefault();
    this.choose(Math.min(last, Math.max(cells[0].window, to)));
  }
}

function mark(pen, text, x, [top, height], colour) {
  pen.fillStyle = colour;
  pen.fillText(text, x + (CELL - GAP) / 2, top + height / 2 + 1);
}
