/**
 * The conversation in words: what is said, typed, shown, called and answered.
 *
 * For: `session.js`. Not for: sound. Start at `grow`. Every text is put in as
 * text, never as markup.
 *
 * The list is a log that a screen reader reads politely. What the model says
 * can be heard already, so these lines are read only where that is asked for.
 */

const NAMES = {
  model: "The model says",
  typed: "You typed",
  shown: "The model shows",
  call: "It calls",
  result: "Result",
  notice: "Notice",
};
const MOST_LINES = 500; // on the page; the download has all
const NEAR_END = 48; // pixels: whoever reads there goes along

/** Lines in an <ol>, which the element `log` scrolls and has read. */
export class WordsView {
  constructor(log, list) {
    this.log = log;
    this.list = list;
    this.areWordsRead = false;
    this.reset();
  }

  reset() {
    this.list.replaceChildren();
    this.open = new Map(); // lines that still grow, by id
  }

  /** Adds `text` to the line `id`, which is made where there is none. */
  grow(id, kind, text, { seconds, isDone = false } = {}) {
    const isNear = this.isNearEnd();
    let line = this.open.get(id);
    if (!line) {
      line = this.make(kind, seconds);
      this.open.set(id, line);
    }
    line.words.textContent += text;
    if (isDone) this.finish(id);
    this.trim();
    if (isNear) this.log.scrollTop = this.log.scrollHeight;
    return line.words.textContent;
  }

  /** A whole line. */
  add(kind, text, { seconds } = {}) {
    this.grow(Symbol(kind), kind, text, { seconds, isDone: true });
  }

  /** The line `id` grows no more; `note` says why. Returns its text. */
  finish(id, note = "") {
    const line = this.open.get(id);
    if (!line) return "";
    this.open.delete(id);
    line.item.classList.remove("growing");
    if (note) {
      const mark = document.createElement("span");
      mark.className = "note";
      mark.textContent = ` (${note})`;
      line.item.append(mark);
    }
    return line.words.textContent;
  }

  /** No line grows any more. Returns them as {kind, text}. */
  finishAll(note) {
    return [...this.open].map(([id, { kind }]) => ({
      kind,
      text: this.finish(id, note),
    }));
  }

  make(kind, seconds) {
    const item = document.createElement("li");
    item.className = `growing ${kind}`;
    if (kind === "model" && !this.areWordsRead) {
      item.setAttribute("aria-live", "off");
    }
    const name = document.createElement("span");
    name.className = "who";
    name.textContent = NAMES[kind];
    const words = document.createElement("span");
    words.className = "words";
    words.dir = "auto";
    if (seconds !== undefined) {
      const time = document.createElement("time");
      time.textContent = `${seconds.toFixed(1)} s`;
      item.append(time, " ");
    }
    item.append(name, " ", words);
    this.list.append(item);
    return { item, words, kind };
  }

  /** The lines that are whole, as {kind, text, seconds}. */
  lines() {
    return [...this.list.querySelectorAll("li:not(.growing)")].map((item) => ({
      kind: item.className,
      text: item.querySelector(".words").textContent,
      seconds: parseFloat(item.querySelector("time")?.textContent ?? "0"),
    }));
  }

  trim() {
    while (this.list.children.length > MOST_LINES) {
      this.list.firstElementChild.remove();
    }
  }

  isNearEnd() {
    const { scrollTop, clientHeight, scrollHeight } = this.log;
    return scrollHeight - scrollTop - clientHeight < NEAR_END;
  }
}
