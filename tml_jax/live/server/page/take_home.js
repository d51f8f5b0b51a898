/**
 * What stays of a conversation: in this tab over a refresh, and as a download.
 *
 * For: `main.js`. Not for: collecting it (`session_log.js`). Sound and video
 * stay in memory alone, so that a download begins where the page was loaded
 * last; words survive a refresh.
 */

import { zip } from "./zip.js";

const WORDS = "words"; // in the tab's storage
const MOST_CHARS = 200000;

/** What this tab keeps over a refresh; a browser may forbid it. */
class Tab {
  constructor() {
    this.values = new Map();
  }

  get(name) {
    try {
      return sessionStorage.getItem(name) ?? "";
    } catch {
      return this.values.get(name) ?? "";
    }
  }

  set(name, text) {
    try {
      sessionStorage.setItem(name, text);
    } catch {
      this.values.set(name, text); // until the page is left
    }
  }
}

const tab = new Tab();

/** The token of the session, that of the server, and the consent. */
export const kept = {
  get resume() {
    return tab.get("resume");
  },
  set resume(token) {
    tab.set("resume", token);
  },
  get token() {
    return tab.get("token");
  },
  set token(token) {
    tab.set("token", token);
  },
  get recorded() {
    return tab.get("recorded") === "yes";
  },
  set recorded(isAllowed) {
    tab.set("recorded", isAllowed ? "yes" : "");
  },
};

/** Keeps the words that stand on the page. */
export function remember(words) {
  const lines = words.lines();
  let text = JSON.stringify(lines);
  while (text.length > MOST_CHARS && lines.length) {
    lines.splice(0, Math.ceil(lines.length / 2)); // the oldest ones
    text = JSON.stringify(lines);
  }
  tab.set(WORDS, text);
}

/** Puts them onto the page again. */
export function recall(words) {
  const lines = JSON.parse(tab.get(WORDS) || "[]");
  for (const { kind, text, seconds } of lines)
    words.add(kind, text, { seconds });
}

/** Forgets them. */
export function forget() {
  tab.set(WORDS, "");
}

/** All files of a session, as {name, bytes}. */
export function archive(session, drawing) {
  const { about, figures, log, playout } = session;
  const { resume_token: _, ...told } = about; // a key, nobody else's business
  const files = log.files({
    ...told,
    figures: figures.summary(),
    playout,
    flushes: figures.flushes,
  });
  const picture = drawing.file();
  if (picture) {
    files.push({
      name: "drawing.svg",
      bytes: new TextEncoder().encode(picture),
    });
  }
  return files;
}

/** Hands files to the person as one archive. */
export function offer(files, name) {
  const blob = new Blob(zip(files), { type: "application/zip" });
  const link = document.createElement("a");
  link.href = URL.createObjectURL(blob);
  link.download = name;
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 60000);
}
