/**
 * Microphone and loudspeaker of one session.
 *
 * For: `main.js`. Not for: what happens to samples (the two worklets and
 * `jitter_buffer.js`). Start at `Audio.open`. Both worklets run in one
 * AudioContext, whose clock is the page's clock.
 */

const CHUNK_MS = 40; // of the microphone, in one message
const MIC = {
  echoCancellation: true,
  noiseSuppression: true,
  autoGainControl: true,
};

/** Whether this page may use microphone and sound at all. */
export function isAllowed() {
  return globalThis.isSecureContext && Boolean(globalThis.AudioWorkletNode);
}

/** The two ends of the conversation. */
export class Audio {
  /**
   * `on` has functions: sound({seconds, pcm, level}), played({seconds, pcm}),
   * report(numbers), silent({asked, rendered_ms, heard_ms}), lost() for a
   * microphone that went away.
   */
  constructor(on) {
    this.on = on;
    this.flushedAt = 0; // ms of the page, of the last flush
    // Made where a person has clicked, or browsers keep it silent.
    this.context = new AudioContext({ latencyHint: "interactive" });
    this.context.resume();
    // Telephones stop it for a call, or while the page is hidden.
    this.wake = () => this.context.state !== "closed" && this.context.resume();
    document.addEventListener("visibilitychange", this.wake);
  }

  /** Seconds of the page's clock. */
  get now() {
    return this.context.currentTime;
  }

  /** Loads the worklets; `rate` in Hz is the session's. */
  async open(rate) {
    const { context } = this;
    for (const name of ["capture", "playout"]) {
      const url = new URL(`./${name}_worklet.js`, import.meta.url);
      await context.audioWorklet.addModule(url);
    }
    this.capture = new AudioWorkletNode(context, "capture", {
      processorOptions: { rate, chunkMs: CHUNK_MS },
    });
    this.capture.port.onmessage = ({ data }) => this.on.sound(data);
    this.capture.connect(context.destination); // silent, but it keeps running
    this.source?.connect(this.capture);
    this.playout = new AudioWorkletNode(context, "playout", {
      numberOfInputs: 0,
      outputChannelCount: [1],
      processorOptions: { rate },
    });
    this.playout.port.onmessage = ({ data }) => this.hear(data);
    this.playout.connect(context.destination);
  }

  hear(data) {
    if (data.kind === "played") this.on.played(data);
    else if (data.kind === "report") this.on.report(data);
    else if (data.kind === "silent") this.on.silent(this.sinceFlush(data));
  }

  /**
   * How long the last flush took, which was asked for at `asked` (ms since
   * 1970): until the worklet rendered silence, and until the loudspeaker had
   * it, by the browser's own estimate.
   */
  sinceFlush({ seconds, wall }) {
    const asked = performance.timeOrigin + this.flushedAt;
    const rendered = wall - asked;
    const stamp = this.context.getOutputTimestamp();
    const heard = stamp.contextTime
      ? stamp.performanceTime + 1000 * (seconds - stamp.contextTime)
      : this.flushedAt + rendered + 1000 * (this.context.outputLatency || 0);
    return {
      asked,
      rendered_ms: Math.max(0, rendered),
      heard_ms: Math.max(0, rendered, heard - this.flushedAt),
    };
  }

  /** Asks for the microphone `deviceId`, "" for the usual one. Throws. */
  async ask(deviceId) {
    const exact = deviceId ? { deviceId: { exact: deviceId } } : {};
    const stream = await navigator.mediaDevices.getUserMedia({
      audio: { ...MIC, ...exact },
    });
    this.deafen();
    this.stream = stream;
    const [track] = stream.getAudioTracks();
    track.onended = () => this.on.lost();
    this.source = this.context.createMediaStreamSource(stream);
    if (this.capture) this.source.connect(this.capture);
  }

  /** Lets the microphone go. */
  deafen() {
    this.source?.disconnect();
    for (const track of this.stream?.getTracks() ?? []) {
      track.onended = null;
      track.stop();
    }
    this.source = this.stream = null;
  }

  get isListening() {
    return Boolean(this.stream);
  }

  /** Whether what the microphone hears is passed on. */
  setOn(on) {
    for (const track of this.stream?.getAudioTracks() ?? []) track.enabled = on;
    this.capture?.port.postMessage({ on });
  }

  /** Sound of the stretch `item`, as an Int16Array. */
  play(item, pcm) {
    this.playout.port.postMessage({ kind: "push", item, pcm }, [pcm.buffer]);
  }

  /** The stretch has ended. */
  end() {
    this.playout.port.postMessage({ kind: "end" });
  }

  /** Nothing of what waits is to be heard; `now` ms is when this was asked. */
  flush(now) {
    this.flushedAt = now;
    this.playout.port.postMessage({ kind: "flush" });
  }

  get canChooseSpeaker() {
    return "setSinkId" in this.context;
  }

  /** Plays on `deviceId`, "" for the usual one. Throws. */
  async speakOn(deviceId) {
    await this.context.setSinkId(deviceId);
  }

  async close() {
    this.deafen();
    document.removeEventListener("visibilitychange", this.wake);
    this.capture?.port.postMessage({ end: true });
    this.playout?.port.postMessage({ kind: "close" });
    if (this.context.state !== "closed") await this.context.close();
  }
}

/** Microphones and loudspeakers, as {microphones, speakers}. */
export async function devices() {
  const all = (await navigator.mediaDevices?.enumerateDevices()) ?? [];
  const kind = (name) => all.filter((device) => device.kind === name);
  return { microphones: kind("audioinput"), speakers: kind("audiooutput") };
}
