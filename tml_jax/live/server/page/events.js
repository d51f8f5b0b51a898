/**
 * Events of the Realtime protocol as this page sends them.
 *
 * For: `connection.js` and whoever sends. Not for: sockets, or what comes back
 * (`session.js`). Pure. Events whose type begins with `tml.` are our own.
 */

import { encodePcm16 } from "./codec.js";

const SUBPROTOCOL = "realtime";
const TOKEN_PREFIX = "openai-insecure-api-key."; // OpenAI's own convention
const RESUME_PREFIX = "tml-resume."; // addresses are written into logs

/** Whether a server may have such a token: it goes as a subprotocol. */
export function isToken(text) {
  return /^[A-Za-z0-9._~-]+$/.test(text);
}

/** Address and subprotocols of the socket; `place` is a Location or URL. */
export function address(place, { resume = "", token = "" } = {}) {
  const url = new URL("/v1/realtime", place.href);
  url.protocol = place.protocol === "https:" ? "wss:" : "ws:";
  url.searchParams.set("client", "page");
  const protocols = [SUBPROTOCOL];
  if (resume) protocols.push(RESUME_PREFIX + resume);
  if (token) protocols.push(TOKEN_PREFIX + token);
  return { url: url.href, protocols };
}

/** Sound goes both ways as 16-bit PCM at `rate` Hz. */
export function sessionUpdate(rate) {
  const pcm = { format: { type: "audio/pcm", rate } };
  const audio = { input: pcm, output: pcm };
  return { type: "session.update", session: { type: "realtime", audio } };
}

/** What the microphone heard; an Int16Array. */
export function sound(pcm) {
  return { type: "input_audio_buffer.append", audio: encodePcm16(pcm) };
}

/** What was typed. */
export function typed(text) {
  const content = [{ type: "input_text", text }];
  const item = { type: "message", role: "user", content };
  return { type: "conversation.item.create", item };
}

/** One frame of camera or screen, now; base64 of a JPEG. */
export function videoFrame(image) {
  return { type: "tml.video.append", image };
}

/** How much of `item` was heard before it was cut. */
export function truncate(item, ms) {
  return {
    type: "conversation.item.truncate",
    item_id: item,
    content_index: 0,
    audio_end_ms: Math.round(ms),
  };
}

/** The microphone is off: the model hears nothing, which is not silence. */
export function mute(muted) {
  return { type: "tml.mute", muted };
}

/** The session rests; no windows pass. */
export function pause(paused) {
  return { type: "tml.pause", paused };
}

/** The person's answer to being recorded. */
export function record(allowed) {
  return { type: "tml.record", allowed };
}

/** What the loudspeaker did, for the server's metrics. */
export function playback({ item, played_ms, buffer_ms, jitter_ms }) {
  const round = (value) => Math.round(10 * value) / 10;
  return {
    type: "tml.playback",
    item_id: item,
    played_ms: round(played_ms),
    buffer_ms: round(buffer_ms),
    jitter_ms: round(jitter_ms),
  };
}

/** Windows pass from now on, also without a microphone. */
export function begin() {
  return { type: "response.create" };
}

/** Asks for `tml.pong` with the same number. */
export function ping(sent) {
  return { type: "tml.ping", sent };
}

/** Ends the session for good. */
export function close() {
  return { type: "tml.close" };
}
