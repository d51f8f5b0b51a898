/**
 * What the model draws, as it grows.
 *
 * For: `session.js`. Not for: the commands' grammar: the browser's own reader
 * draws what comes before an error, as `tml_jax/tools/drawing.py` does. Start
 * at `add`.
 */

const SVG = "http://www.w3.org/2000/svg";
const MARGIN = 0.08; // of the longer side
const STROKE = 0.02;
const MOST_CHARS = 1 << 20; // of all paths

/** Paths in an <svg>. */
export class DrawingView {
  constructor(svg) {
    this.svg = svg;
    this.reset();
  }

  reset() {
    this.svg.replaceChildren();
    this.paths = new Map(); // by drawing_id
    this.chars = 0;
    this.svg.setAttribute("aria-label", "Nothing is drawn yet");
  }

  get isEmpty() {
    return this.paths.size === 0;
  }

  /** Takes a `tml.draw`. */
  add({ drawing_id: id, path, error, box, size }) {
    this.chars += path?.length ?? 0;
    if (this.chars > MOST_CHARS) return;
    let element = this.paths.get(id);
    if (!element) {
      element = document.createElementNS(SVG, "path");
      this.svg.append(element);
      this.paths.set(id, element);
    }
    const before = element.getAttribute("d") ?? "";
    if (path) element.setAttribute("d", `${before} ${path}`.trim());
    if (error) element.classList.add("malformed");
    this.fit(box ?? (size && [0, 0, ...size]));
    const count = this.paths.size;
    const name = count === 1 ? "one piece" : `${count} pieces`;
    this.svg.setAttribute("aria-label", `The model's drawing, in ${name}`);
  }

  /** Shows `box` (left, top, width, height), or what is drawn without one. */
  fit(box) {
    let sides = box;
    if (!sides) {
      const { x, y, width, height } = this.svg.getBBox();
      const margin = MARGIN * Math.max(width, height);
      sides = [x - margin, y - margin, width + 2 * margin, height + 2 * margin];
    }
    const longer = Math.max(sides[2], sides[3]) || 1;
    const shown = [
      sides[0],
      sides[1],
      Math.max(sides[2], 0.1 * longer),
      Math.max(sides[3], 0.1 * longer),
    ];
    this.svg.setAttribute("viewBox", shown.map((v) => v.toFixed(3)).join(" "));
    this.svg.setAttribute("stroke-width", String(STROKE * longer));
  }

  /** The picture as a file, or "" where nothing is drawn. */
  file() {
    if (this.isEmpty) return "";
    const copy = this.svg.cloneNode(true);
    copy.setAttribute("xmlns", SVG);
    for (const [name, value] of Object.entries({
      fill: "none",
      stroke: "#000000",
      "stroke-linecap": "round",
      "stroke-linejoin": "round",
    })) {
      copy.setAttribute(name, value);
    }
    return copy.outerHTML;
  }
}
