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

/** The keys of this tab, which outlive a refresh. */
export const kept = {
  get resume() {
    return sessionStorage.getItem("resume") ?? "";
  },
  set resume(token) {
    sessionStorage.setItem("resume", token);
  },
  get token() {
    return sessionStorage.getItem("token") ?? "";
  },
  set token(token) {
    sessionStorage.setItem("token", token);
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
  sessionStorage.setItem(WORDS, text);
}

/** Puts them onto the page again. */
export function recall(words) {
  const lines = JSON.parse(sessionStorage.getItem(WORDS) ?? "[]");
  for (const { kind, text, seconds } of lines)
    words.add(kind, text, { seconds });
}

/** Forgets them. */
export function forget() {
  sessionStorage.removeItem(WORDS);
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
