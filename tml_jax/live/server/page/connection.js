/**
 * The socket to the server, which comes back after a break.
 *
 * For: `main.js`. Not for: what events mean (`session.js`). Start at `open`.
 *
 * A session rests on the server when its socket breaks. The page asks for it
 * again with its resume token, at growing distances, for as long as it rests.
 * Sound and pictures that cannot leave at once are dropped: to the model they
 * are absent, and time never shifts.
 */

import * as events from "./events.js";

const WAITS = [0.3, 1, 2, 4, 5]; // seconds; the last one repeats
const SILENT_SECONDS = 6; // without a window: the line is dead
/** Events that say that windows pass, or are about to. */
const SIGNS = ["tml.tick", "tml.session"];
const MOST_WAITING = 1 << 16; // bytes that have not left

/** Codes of a close, with what is to be done. */
const ENDED = 1000;
const REFUSED = 1008;
const TOO_LARGE = 1009;
const FULL = 1013;
const RESTS = 4000; // paused for too long; its token is still good

/** One session's socket. */
export class Connection {
  /**
   * `on` has functions: event(event, now, bytes), state(name, details). Names
   * of states: "connecting", "open", "broken" {seconds}, "ended" {code,
   * reason}, "refused" {code, reason, session} (never was open).
   */
  constructor(on) {
    this.on = on;
    this.token = "";
    this.resume = "";
    this.rests = 30; // seconds; the server says
    this.isPaused = false; // then no event is due
    this.wasOpen = false; // this socket
    this.isHeld = false; // the server has told of a session
    this.dropped = 0; // messages that could not leave
    this.sent = 0; // bytes
  }

  /** Connects; with a `resume` token to the session that rests there. */
  open({ token = "", resume = "" } = {}) {
    this.token = token;
    this.resume = resume;
    this.isWanted = true;
    this.isHeld = false;
    this.tries = 0;
    this.brokenAt = null; // ms; null until it was open once
    this.connect();
  }

  connect() {
    clearTimeout(this.timer);
    this.on.state("connecting", {});
    const { url, protocols } = events.address(location, this);
    let socket;
    try {
      socket = new WebSocket(url, protocols);
    } catch (error) {
      this.refuse(error); // a token that is none
      return;
    }
    this.socket = socket;
    this.wasOpen = false;
    this.watch();
    socket.onopen = () => {
      this.wasOpen = true;
      this.watch();
      this.on.state("open", {});
    };
    socket.onmessage = ({ data }) => {
      if (socket === this.socket) this.receive(data);
    };
    socket.onclose = ({ code, reason }) => {
      if (socket === this.socket) this.closed({ code, reason });
    };
  }

  /** Nothing that could be opened. */
  async refuse({ message: reason }) {
    this.isWanted = false;
    const session = await about(this.token);
    this.on.state("refused", { code: 1006, reason, session });
  }

  receive(data) {
    const now = performance.now();
    let event = null;
    try {
      event = JSON.parse(data);
    } catch {
      console.warn("the server sent what is no JSON");
    }
    if (typeof event?.type !== "string") return;
    if (SIGNS.includes(event.type)) this.watch();
    if (event.type === "tml.session") {
      this.resume = event.resume_token ?? "";
      this.rests = event.rests_seconds ?? this.rests;
      this.tries = 0;
      this.brokenAt = null;
      this.isHeld = true;
    }
    this.on.event(event, now, data.length);
  }

  /** Breaks a line without windows, though an answer or ticks are due. */
  watch() {
    clearTimeout(this.watcher);
    if (this.isPaused && this.wasOpen) return;
    this.watcher = setTimeout(() => this.break(), 1000 * SILENT_SECONDS);
  }

  /** Gives this socket up and tries another one. */
  break() {
    const socket = this.socket;
    if (!socket || !this.isWanted) return;
    this.socket = null;
    socket.close();
    this.closed({ code: 1006, reason: "" });
  }

  async closed({ code, reason }) {
    clearTimeout(this.watcher);
    this.socket = null;
    if (!this.isWanted) return;
    const isFinal = [ENDED, REFUSED, TOO_LARGE, RESTS].includes(code);
    const isLost = !this.isHeld && (!this.wasOpen || code === FULL);
    if (isFinal || isLost) {
      this.isWanted = false;
      const session = await about(this.token);
      const name = this.isHeld ? "ended" : "refused";
      this.on.state(name, { code, reason, session });
      return;
    }
    this.brokenAt ??= performance.now();
    const left = this.rests - (performance.now() - this.brokenAt) / 1000;
    if (left <= 0) {
      this.isWanted = false;
      this.on.state("ended", {
        code,
        reason: "",
        session: await about(this.token),
      });
      return;
    }
    const wait = WAITS[Math.min(this.tries, WAITS.length - 1)];
    this.tries += 1;
    this.on.state("broken", { seconds: left });
    this.timer = setTimeout(() => this.connect(), 1000 * wait);
  }

  /** The network is there again: tries at once. */
  hurry() {
    if (this.isWanted && !this.socket) this.connect();
  }

  get isOpen() {
    return this.socket?.readyState === WebSocket.OPEN;
  }

  /** Sends an event; returns whether it left. */
  send(event) {
    if (!this.isOpen) return false;
    const text = JSON.stringify(event);
    this.sent += text.length;
    this.socket.send(text);
    return true;
  }

  /** Sends sound or a picture, or drops it where the line is full. */
  sendLive(event) {
    if (this.isOpen && this.socket.bufferedAmount <= MOST_WAITING) {
      return this.send(event);
    }
    this.dropped += 1;
    return false;
  }

  /** Ends the session for good. */
  close() {
    this.isWanted = false;
    clearTimeout(this.timer);
    clearTimeout(this.watcher);
    this.send(events.close());
    this.socket?.close(ENDED);
    this.socket = null;
  }
}

/** What the server says of itself: {status, ...}; status 0 is no answer. */
export async function about(token) {
  if (token && !events.isToken(token)) return { status: 401 };
  try {
    const headers = token ? { Authorization: `Bearer ${token}` } : {};
    const answer = await fetch("/v1/session", { headers, cache: "no-store" });
    const body = answer.ok ? await answer.json() : {};
    return { status: answer.status, ...body };
  } catch {
    return { status: 0 };
  }
}
