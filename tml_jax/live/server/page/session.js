/**
 * What the server's events do on the page.
 *
 * For: `main.js`, which makes one `Session` for each conversation. Not for:
 * the socket (`connection.js`) or devices (`audio.js`, `video.js`). Start at
 * `HANDLERS`: one function for each type of event.
 */

import { decodePcm16 } from "./codec.js";
import * as events from "./events.js";
import { Figures } from "./figures.js";
import { SessionLog } from "./session_log.js";
import { StripState } from "./strip_state.js";

/** Hz, both ways: the model's own, so that the server resamples nothing. */
export const RATE = 16000;
const MOST_CUT = 64; // items whose late sound is thrown away
const MOST_TEXT = 4000; // letters of one call or result on the page

/** Text of what may be an object. */
function textOf(value) {
  const text = typeof value === "string" ? value : JSON.stringify(value ?? "");
  return text.length > MOST_TEXT ? `${text.slice(0, MOST_TEXT)} [cut]` : text;
}

/** One conversation on this page. */
export class Session {
  /**
   * `views` has words, drawing and strip; `on` has ready(about, isFirst),
   * changed() and send(event, {isLive}).
   */
  constructor(views, on) {
    this.views = views;
    this.on = on;
    this.audio = null; // set once there is one
    this.about = null; // the last `tml.session`
    this.isReady = false; // formats are agreed: sound may be sent
    this.figures = new Figures();
    this.strip = new StripState();
    this.log = new SessionLog(RATE);
    this.item = ""; // whose sound came last
    this.isOpen = false; // whether more of it is to come
    this.cut = new Set(); // items that the model gave up
    this.playout = {
      item: "",
      played_ms: 0,
      buffer_ms: 0,
      gaps: 0,
      dropped_ms: 0,
    };
    this.origin = performance.now();
    views.strip.reset(this.strip);
  }

  /** Seconds on the page's clock. */
  get seconds() {
    if (this.audio) return Math.max(0, this.audio.now - this.audioOrigin);
    return (performance.now() - this.origin) / 1000;
  }

  /** From here on sound is heard; the clock of the card becomes the page's. */
  attach(audio) {
    this.audioOrigin = audio.now - (performance.now() - this.origin) / 1000;
    this.audio = audio;
  }

  /** Takes an event that came at `now` ms and had so many letters. */
  handle(event, now, letters) {
    this.figures.bytes.in += letters;
    HANDLERS[event.type]?.call(this, event, now);
  }

  /** Sound of the microphone: {seconds, pcm}, by the card's clock. */
  heard({ seconds, pcm }) {
    if (!this.isReady) return;
    this.log.sound("user", seconds - this.audioOrigin, pcm);
    this.on.send(events.sound(pcm), { isLive: true });
  }

  /** What has sounded: {seconds, pcm}. */
  sounded({ seconds, pcm }) {
    this.log.sound("agent", seconds - this.audioOrigin, pcm);
  }

  /** The loudspeaker's numbers. */
  reported(report) {
    this.playout = report;
    if (report.thrown_ms === undefined || !report.item) return;
    this.on.send(events.truncate(report.item, report.played_ms));
  }

  /** A flush was over: {asked, rendered_ms, heard_ms}. */
  silent(flush) {
    this.figures.flushes.push(flush);
  }

  /** Something that was typed here. */
  typed(text) {
    if (!this.on.send(events.typed(text))) return false;
    this.line("typed", text);
    return true;
  }

  /** A line that is whole, on the page and in the download. */
  line(kind, text) {
    const { seconds } = this;
    this.views.words.add(kind, text, { seconds });
    this.log.line(seconds, kind, text);
    this.on.changed();
  }

  /** More of a line. */
  grow(id, kind, text, isDone) {
    const { seconds } = this;
    const whole = this.views.words.grow(id, kind, text, { seconds, isDone });
    if (isDone) this.log.line(seconds, kind, whole);
  }

  /** The line broke: what was to come does not. */
  interrupt() {
    for (const { kind, text } of this.views.words.finishAll("cut off"))
      this.log.line(this.seconds, kind, text);
    this.isReady = false;
    this.isOpen = false;
    this.figures.interrupt();
    this.audio?.end();
  }
}

const HANDLERS = {
  "tml.session"(event) {
    const isFirst = this.about === null;
    this.about = event;
    this.views.strip.windowMs = event.window_ms;
    if (!isFirst) this.figures.reconnects += 1;
    this.on.send(events.sessionUpdate(RATE));
    this.on.ready(event, isFirst);
  },

  "session.updated"() {
    this.isReady = true;
  },

  "response.output_audio.delta"({ item_id: item, delta }) {
    // Before, a server that goes on for us may use another rate.
    if (!this.isReady || this.cut.has(item) || !this.audio) return;
    this.item = item;
    this.isOpen = true;
    this.audio.play(item, decodePcm16(delta));
  },

  "response.output_audio.done"({ item_id: item }) {
    if (item !== this.item) return;
    this.isOpen = false;
    this.audio?.end();
  },

  "response.output_audio_transcript.delta"({ item_id: item, delta }) {
    this.grow(item, "model", textOf(delta), false);
  },

  "response.output_audio_transcript.done"({ item_id: item }) {
    const isCut = this.cut.has(item);
    const said = this.views.words.finish(item, isCut ? "gave way" : "");
    if (said) this.log.line(this.seconds, "model", said, { gave_way: isCut });
    this.on.changed();
  },

  "input_audio_buffer.speech_started"(_, now) {
    if (this.isOpen) {
      this.cut.add(this.item);
      if (this.cut.size > MOST_CUT)
        this.cut.delete(this.cut.values().next().value);
      this.isOpen = false;
    }
    this.audio?.flush(now);
  },

  "tml.tick"(event, now) {
    const { window_ms: windowMs } = this.about ?? { window_ms: 200 };
    this.figures.tick(event, { now, windowMs });
    this.strip.add(event);
    this.log.tick(this.seconds, event);
    this.views.strip.repaint();
  },

  "tml.show"({ item_id: item, delta, done }) {
    this.grow(`show ${item}`, "shown", textOf(delta), Boolean(done));
    if (done) this.on.changed();
  },

  "tml.draw"(event) {
    this.views.drawing.add(event);
  },

  "tml.call"({ name, arguments: given }) {
    this.line("call", `${textOf(name)} ${textOf(given)}`);
  },

  "tml.result"({ output }) {
    this.line("result", textOf(output));
  },

  "tml.pong"({ sent }, now) {
    this.figures.trips.add(now - sent);
  },

  error({ error }) {
    const says = textOf(error?.message ?? error?.code ?? "unknown");
    this.line("notice", `The server says: ${says}`);
  },
};
