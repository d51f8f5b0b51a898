/**
 * What stands on the page outside of the conversation: states, figures,
 * buttons, devices.
 *
 * For: `main.js`. Not for: deciding anything. Each method shows what it is
 * given.
 */

import * as messages from "./messages.js";

const QUIETEST = -60; // dB of full scale: the left end of the meter
const METER_MS = 80;

/** The element of an id; throws where there is none. */
export function element(id) {
  const found = document.getElementById(id);
  if (!found) throw new Error(`index.html has no #${id}`);
  return found;
}

const show = (id, isShown) => {
  element(id).hidden = !isShown;
};
const say = (id, text) => {
  const place = element(id);
  if (place.textContent !== text) place.textContent = text;
};
/** A paragraph that is there while it says something. */
const notice = (id, text) => {
  say(id, text);
  show(id, Boolean(text));
};
const press = (id, isPressed) => {
  element(id).setAttribute("aria-pressed", String(isPressed));
};
const ms = (value) =>
  Number.isFinite(value) ? `${Math.round(value)} ms` : "–";

/** The whole of it. */
export class Panel {
  constructor() {
    this.meterAt = 0;
    this.about = null;
  }

  status(text) {
    say("status", text);
  }

  /** Before anybody has clicked; `server` is its `/v1/session`. */
  idle(server, { canGoOn }) {
    const isRefused = server.status === 401;
    show("token-form", isRefused);
    element("begin").disabled = isRefused;
    say("begin", canGoOn ? "Go on with the conversation" : "Start talking");
    show("anew", canGoOn);
    notice("tiny", messages.tiny(server.run));
    show("consent-row", Boolean(server.recording?.offered) && !canGoOn);
    const isFull = server.slots_free === 0 && !canGoOn;
    let problem = isFull ? messages.full(server) : "";
    if (server.status === 0)
      problem = "The server does not answer. Is it running?";
    if (!globalThis.isSecureContext) problem = messages.INSECURE;
    notice("problem", problem);
    this.status(messages.about(server.run) || "Ready");
    if (isRefused) element("token").focus();
  }

  askToken() {
    show("token-form", true);
    element("token").focus();
  }

  starting() {
    element("begin").disabled = true;
    show("anew", false);
    show("download", false);
    notice("problem", "");
    this.status("Waiting for the microphone");
  }

  /** There is a session. */
  live(about, choice) {
    this.about = about;
    show("start", false);
    show("live", true);
    show("controls", true);
    show("type-form", true);
    show("recording-row", Boolean(about.recording?.offered));
    element("recording").checked = choice.recorded;
    say("run-says", messages.server(about));
    const { video } = about;
    for (const id of ["camera", "screen"]) element(id).disabled = !video;
    if (!navigator.mediaDevices?.getDisplayMedia)
      element("screen").disabled = true;
    say(
      "video-says",
      video
        ? `It sees ${video.width} x ${video.height} pixels, ` +
            `${video.frames_per_window} a window of ${about.window_ms} ms.`
        : "This run does not see: camera and screen are off.",
    );
    this.choices(choice);
    if (document.activeElement === document.body) element("mute").focus();
  }

  state(choice) {
    let says = "Live: speak whenever you like";
    if (choice.muted) says = "Live, microphone off";
    if (choice.paused) says = "Paused: the session rests";
    if (choice.recorded) says += "; the server records";
    this.status(says);
  }

  /** Mute and pause. */
  choices(choice) {
    press("mute", choice.muted);
    press("pause", choice.paused);
    if (choice.muted || choice.paused) this.meter(-100, "off");
    this.state(choice);
  }

  video(source) {
    press("camera", source === "camera");
    press("screen", source === "screen");
    show("video-panel", Boolean(source));
    const says = source ? `What the model sees of your ${source}` : "Nothing";
    element("video").setAttribute("aria-label", says);
  }

  /** That the server cannot keep up; its numbers change, so it is no alert. */
  slow(text) {
    notice("slow", text);
  }

  trouble(text) {
    notice("trouble", text);
  }

  /** The microphone's loudness in dB of full scale. */
  level(value) {
    const now = performance.now();
    if (now - this.meterAt < METER_MS) return;
    this.meterAt = now;
    this.meter(value, value > QUIETEST ? `${Math.round(value)} dB` : "silent");
  }

  meter(value, text) {
    const share = Math.min(1, Math.max(0, 1 - value / QUIETEST));
    element("level-bar").style.transform = `scaleX(${share.toFixed(3)})`;
    const meter = element("level");
    const within = Math.min(0, Math.max(QUIETEST, Math.round(value)));
    meter.setAttribute("aria-valuenow", String(within));
    meter.setAttribute("aria-valuetext", text);
  }

  figures({ figures, playout }) {
    const numbers = figures.summary();
    const share = numbers.windows
      ? numbers.deadlines_missed / numbers.windows
      : 0;
    say("figure-round-trip", ms(numbers.round_trip_ms));
    say("figure-jitter", ms(numbers.jitter_ms));
    say("figure-tick", ms(numbers.tick_ms_p50));
    say("figure-missed", `${numbers.deadlines_missed} of ${numbers.windows}`);
    element("figure-missed").classList.toggle("bad", share > 0.01);
    say("figure-buffer", ms(playout.buffer_ms));
    say("figure-gaps", String(playout.gaps));
    element("figure-gaps").classList.toggle("bad", playout.gaps > 0);
    say("figure-flush", ms(numbers.flush_ms_last));
  }

  /** Fills the choices of devices. */
  devices({ microphones, speakers }, audio) {
    fill("microphone", microphones, "Microphone");
    fill("speaker", speakers, "Speaker");
    const speaker = element("speaker");
    speaker.disabled = !audio.canChooseSpeaker;
    speaker.title = audio.canChooseSpeaker
      ? ""
      : "This browser plays on the system's usual speaker";
  }

  /** The conversation is over; `again` is what the big button offers. */
  over(says, { canDownload, canGoOn, again }) {
    show("anew", canGoOn);
    show("start", true);
    show("controls", false);
    show("type-form", false);
    show("begin-says", false);
    show("consent-row", Boolean(this.about?.recording?.offered));
    show("download", canDownload);
    show("video-panel", false);
    notice("trouble", "");
    notice("problem", says);
    const button = element("begin");
    button.disabled = false;
    say("begin", again);
    button.focus();
    this.status("Not connected");
  }
}

/** Options of a <select>, of which the chosen one stays. */
function fill(id, devices, name) {
  const select = element(id);
  const chosen = select.value;
  const options = devices
    .filter(({ deviceId }) => deviceId && deviceId !== "default")
    .map(
      ({ deviceId, label }, i) =>
        new Option(label || `${name} ${i + 1}`, deviceId),
    );
  select.replaceChildren(new Option("Usual one", ""), ...options);
  select.value = options.some(({ value }) => value === chosen) ? chosen : "";
}
