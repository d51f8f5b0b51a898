/**
 * The page: buttons, states and the parts that they join.
 *
 * For: `index.html`, which loads it. Not for: what events do (`session.js`)
 * or what is shown of figures (`panel.js`). Start at `begin`.
 *
 * A refresh breaks the socket; the session rests on the server and this tab
 * keeps its token, so that one click goes on. What was said stays in this
 * tab's storage too, and nowhere else.
 */

import * as audioLib from "./audio.js";
import { toBase64 } from "./codec.js";
import { about, Connection } from "./connection.js";
import { DrawingView } from "./drawing_view.js";
import * as events from "./events.js";
import * as messages from "./messages.js";
import { Panel, element } from "./panel.js";
import { RATE, Session } from "./session.js";
import { slowness, StripState } from "./strip_state.js";
import { StripView } from "./strip_view.js";
import * as takeHome from "./take_home.js";
import { Video } from "./video.js";
import { WordsView } from "./words_view.js";

const PING_MS = 1000;

const panel = new Panel();
const views = {
  words: new WordsView(element("words"), element("lines")),
  drawing: new DrawingView(element("drawing")),
  strip: new StripView(element("strip"), {
    state: new StripState(),
    says: element("cell-says"),
  }),
};
const video = new Video(element("video"), {
  frame: sendFrame,
  stopped: showVideo,
});
const connection = new Connection({ event: take, state: follow });

let server = {}; // what it says of itself
let session = null;
let audio = null;
let timer = 0;
let isResumeWanted = false;
const choice = { muted: false, paused: false, recorded: false };

/** Asks the server what it is, before anybody clicks. */
async function look() {
  const given = new URLSearchParams(location.hash.slice(1)).get("token");
  if (given) {
    takeHome.kept.token = given;
    history.replaceState(null, "", location.pathname + location.search);
  }
  server = await about(takeHome.kept.token);
  panel.idle(server, { canGoOn: Boolean(takeHome.kept.resume) });
  if (takeHome.kept.resume) takeHome.recall(views.words);
}

/** A conversation begins, or goes on with the one that rests. */
async function begin(resume) {
  panel.starting();
  if (!resume) {
    takeHome.forget();
    views.words.reset();
  }
  views.drawing.reset();
  Object.assign(choice, { muted: false, paused: false });
  if (!resume) takeHome.kept.recorded = element("consent").checked;
  choice.recorded = takeHome.kept.recorded;
  session = new Session(views, {
    ready,
    changed: remember,
    send,
  });
  let refusal = audioLib.isAllowed() ? "" : messages.INSECURE;
  if (!refusal) {
    audio = new audioLib.Audio({
      sound: hear,
      played: (data) => session.sounded(data),
      report: (data) => session.reported(data),
      silent: (data) => session.silent(data),
      lost: () => loseMicrophone(messages.MICROPHONE_LOST),
    });
    refusal = await askMicrophone("");
  }
  choice.muted = Boolean(refusal);
  panel.trouble(refusal);
  isResumeWanted = Boolean(resume);
  connection.isPaused = false;
  connection.open({ token: takeHome.kept.token, resume });
}

/** Gets the microphone; returns why not, or "". */
async function askMicrophone(deviceId) {
  try {
    await audio.ask(deviceId);
    return "";
  } catch (error) {
    return messages.microphone(error);
  }
}

/** The server has a place for us, for the first time or again. */
async function ready(about, isFirst) {
  takeHome.kept.resume = about.resume_token ?? "";
  panel.live(about, choice);
  const isAnother = isResumeWanted && !about.resumed;
  if (isAnother) session.line("notice", messages.NOT_RESUMED);
  isResumeWanted = true; // from the next socket on
  tellChoices();
  if (!isFirst) return;
  if (audio) {
    try {
      await audio.open(RATE);
    } catch (error) {
      if (audio) panel.trouble(messages.soundless(error));
      return; // else it was stopped meanwhile
    }
    session.attach(audio);
    audio.setOn(!choice.muted && !choice.paused);
    panel.devices(await audioLib.devices(), audio);
  }
  clearInterval(timer);
  timer = setInterval(pulse, PING_MS);
}

/**
 * Says to the server what was chosen; a new socket does not know. Windows pass
 * after that: a recording has the first one, or it cannot be replayed.
 */
function tellChoices() {
  if (session.about.recording?.offered) send(events.record(choice.recorded));
  send(events.mute(choice.muted));
  send(events.pause(choice.paused)); // the session remembers the last one
  if (!choice.paused) send(events.begin());
}

/** Once a second. */
function pulse() {
  send(events.ping(performance.now()));
  const { figures, playout } = session;
  send(events.playback({ ...playout, jitter_ms: figures.jitter }));
  figures.bytes.out = connection.sent;
  panel.figures(session);
  panel.slow(slowness(session.strip.cells));
}

function send(event, { isLive = false } = {}) {
  return isLive ? connection.sendLive(event) : connection.send(event);
}

function take(event, now, letters) {
  session.handle(event, now, letters);
}

/** The socket's states, in words. */
function follow(name, details) {
  if (name === "connecting") panel.status("Connecting");
  if (name === "broken") {
    session.interrupt();
    panel.status(messages.broken(details));
  }
  if (name === "ended" || name === "refused") {
    const { status } = details.session;
    // Dropped, or not let in for now: the session is not over.
    end(messages.over(name, details), { mayRest: details.code !== 1000 });
    if (status === 401) panel.askToken();
  }
}

/**
 * The line is gone for good; what was said stays on the page. Where nobody
 * ended the session it may rest on the server still.
 */
function end(says, { mayRest = false } = {}) {
  clearInterval(timer);
  session?.interrupt();
  connection.close();
  video.stop();
  audio?.close();
  audio = null;
  if (!mayRest) {
    takeHome.kept.resume = "";
    takeHome.forget();
  }
  const isHeld = Boolean(session?.about);
  let again = isHeld ? "Start another conversation" : "Try again";
  const canGoOn = Boolean(takeHome.kept.resume);
  if (canGoOn) again = "Go on with the conversation";
  panel.over(says, { canDownload: isHeld, canGoOn, again });
}

function hear(data) {
  panel.level(data.level);
  session.heard(data);
}

function loseMicrophone(says) {
  audio.deafen();
  setMuted(true);
  panel.trouble(says);
}

function setMuted(muted) {
  choice.muted = muted;
  audio?.setOn(!muted && !choice.paused);
  send(events.mute(muted));
  panel.choices(choice);
}

async function toggleMute() {
  if (!choice.muted || audio?.isListening) return setMuted(!choice.muted);
  const refusal = audio ? await askMicrophone("") : messages.INSECURE;
  panel.trouble(refusal);
  if (!refusal) setMuted(false);
}

function togglePause() {
  choice.paused = !choice.paused;
  connection.isPaused = choice.paused;
  connection.watch();
  audio?.setOn(!choice.muted && !choice.paused);
  session.figures.interrupt();
  send(events.pause(choice.paused));
  panel.choices(choice);
}

/** What of a picture the model takes, or null. */
function videoShape() {
  const { video: wanted, window_ms: windowMs } = session?.about ?? {};
  if (!wanted) return null;
  const periodMs = windowMs / (wanted.frames_per_window || 1);
  return { width: wanted.width, height: wanted.height, periodMs };
}

async function toggleVideo(source) {
  if (video.source === source) return video.stop();
  try {
    await video.start(source, videoShape());
    panel.trouble("");
  } catch (error) {
    panel.trouble(messages.picture(source, error));
  }
  showVideo();
}

function sendFrame(bytes, source) {
  if (!session?.isReady || choice.paused) return;
  session.log.image(session.seconds, source, bytes);
  send(events.videoFrame(toBase64(bytes)), { isLive: true });
}

function showVideo() {
  panel.video(video.source);
}

async function chooseMicrophone(deviceId) {
  const refusal = await askMicrophone(deviceId);
  panel.trouble(refusal);
  if (!refusal) setMuted(choice.muted);
}

async function chooseSpeaker(deviceId) {
  try {
    await audio.speakOn(deviceId);
  } catch (error) {
    panel.trouble(messages.speaker(error));
  }
}

function type(event) {
  event.preventDefault();
  const field = element("typed");
  const text = field.value.trim();
  if (text && session.typed(text)) field.value = "";
}

function remember() {
  takeHome.remember(views.words);
}

function save() {
  const files = takeHome.archive(session, views.drawing);
  takeHome.offer(files, `conversation-${session.about.session_id}.zip`);
}

const click = (id, act) => element(id).addEventListener("click", act);
click("begin", () => begin(takeHome.kept.resume));
click("anew", () => begin(""));
click("download", save);
click("save", save);
click("mute", toggleMute);
click("pause", togglePause);
click("camera", () => toggleVideo("camera"));
click("screen", () => toggleVideo("screen"));
click("stop", () => end(messages.STOPPED));
element("type-form").addEventListener("submit", type);
element("token-form").addEventListener("submit", (event) => {
  event.preventDefault();
  takeHome.kept.token = element("token").value.trim();
  look();
});
element("microphone").addEventListener("change", ({ target }) =>
  chooseMicrophone(target.value),
);
element("speaker").addEventListener("change", ({ target }) =>
  chooseSpeaker(target.value),
);
element("recording").addEventListener("change", ({ target }) => {
  takeHome.kept.recorded = choice.recorded = target.checked;
  send(events.record(target.checked));
  panel.choices(choice);
});
element("read-words").addEventListener("change", ({ target }) => {
  views.words.areWordsRead = target.checked;
});
addEventListener("online", () => connection.hurry());
navigator.mediaDevices?.addEventListener("devicechange", async () => {
  if (audio) panel.devices(await audioLib.devices(), audio);
});

/** For whoever measures, from the console or a test. */
globalThis.measured = () => ({
  ...session?.figures.summary(),
  playout: session?.playout,
  flushes: session?.figures.flushes ?? [],
  dropped: connection.dropped,
  resumed: session?.about?.resumed,
  session_id: session?.about?.session_id,
});
/** As if the network had gone. */
globalThis.breakLine = () => connection.break();

look();
