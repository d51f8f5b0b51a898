/**
 * What the model draws, as it grows.
 *
 * For: `session.js`. Not for: the commands' grammar, which the server reads
 * (`tml_jax/tools/drawing.py`). Start at `add`.
 */

const SVG = "http://www.w3.org/2000/svg";
const STROKE = 0.02; // of the longer side
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

  /** Takes a `tml.draw`: new strokes, and the box of all that is drawn. */
  add({ drawing_id: id, path, box }) {
    this.chars += path.length;
    if (this.chars > MOST_CHARS) return;
    let element = this.paths.get(id);
    if (!element) {
      element = document.createElementNS(SVG, "path");
      this.svg.append(element);
      this.paths.set(id, element);
    }
    const before = element.getAttribute("d") ?? "";
    element.setAttribute("d", `${before} ${path}`.trim());
    this.svg.setAttribute("viewBox", box.join(" "));
    const longer = Math.max(box[2], box[3]);
    this.svg.setAttribute("stroke-width", String(STROKE * longer));
    const count = this.paths.size;
    const name = count === 1 ? "one piece" : `${count} pieces`;
    this.svg.setAttribute("aria-label", `The model's drawing, in ${name}`);
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
