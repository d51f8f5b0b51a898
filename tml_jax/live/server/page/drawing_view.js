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
  add({ drawing_id: id, path, error, size }) {
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
    this.fit(size);
    const count = this.paths.size;
    const name = count === 1 ? "one piece" : `${count} pieces`;
    this.svg.setAttribute("aria-label", `The model's drawing, in ${name}`);
  }

  /** The picture is as large as what is drawn, or `size` where that is more. */
  fit(size) {
    const box = this.svg.getBBox();
    const [wide, high] = size ?? [0, 0];
    const left = Math.min(box.x, wide ? 0 : box.x);
    const top = Math.min(box.y, high ? 0 : box.y);
    const width = Math.max(box.x + box.width, wide) - left;
    const height = Math.max(box.y + box.height, high) - top;
    const longer = Math.max(width, height) || 1;
    const margin = MARGIN * longer;
    const sides = [
      left - margin,
      top - margin,
      Math.max(width, 0.1 * longer) + 2 * margin,
      Math.max(height, 0.1 * longer) + 2 * margin,
    ];
    this.svg.setAttribute("viewBox", sides.map((v) => v.toFixed(3)).join(" "));
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
