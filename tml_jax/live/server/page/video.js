/**
 * Camera and screen as frames at the model's rate and size.
 *
 * For: `main.js`. Not for: sound. Start at `Video.start`. A frame is stretched
 * to the model's size, as `prepare` does with recordings; the preview is what
 * the model sees.
 */

const QUALITY = 0.85; // of the JPEG

/** One source at a time: "camera" or "screen". */
export class Video {
  /**
   * `canvas` shows the frames; `on` has functions frame(bytes, source) and
   * stopped(source).
   */
  constructor(canvas, on) {
    this.canvas = canvas;
    this.on = on;
    this.source = "";
    this.element = document.createElement("video");
    this.element.muted = true;
    this.element.playsInline = true;
  }

  /** Begins to send; `shape` is {width, height, periodMs}. Throws. */
  async start(source, shape) {
    const { mediaDevices } = navigator;
    const wanted = { video: { frameRate: { ideal: 10 } } };
    if (source === "camera") {
      wanted.video.aspectRatio = { ideal: shape.width / shape.height };
    }
    const stream =
      source === "camera"
        ? await mediaDevices.getUserMedia(wanted)
        : await mediaDevices.getDisplayMedia(wanted);
    this.stop();
    this.source = source;
    this.stream = stream;
    stream.getVideoTracks()[0].onended = () => this.stop();
    this.element.srcObject = stream;
    await this.element.play();
    this.canvas.width = shape.width;
    this.canvas.height = shape.height;
    this.timer = setInterval(() => this.grab(), shape.periodMs);
  }

  grab() {
    if (this.isBusy || this.element.readyState < 2) return;
    const { canvas, source } = this;
    const { width, height } = canvas;
    canvas.getContext("2d").drawImage(this.element, 0, 0, width, height);
    this.isBusy = true; // until the picture is encoded: no queue of them
    canvas.toBlob(
      async (blob) => {
        const bytes = blob && new Uint8Array(await blob.arrayBuffer());
        this.isBusy = false;
        if (bytes && this.source === source) this.on.frame(bytes, source);
      },
      "image/jpeg",
      QUALITY,
    );
  }

  /** Lets the camera or screen go. */
  stop() {
    if (!this.source) return;
    const source = this.source;
    clearInterval(this.timer);
    for (const track of this.stream.getTracks()) {
      track.onended = null;
      track.stop();
    }
    this.element.srcObject = null;
    this.source = "";
    this.on.stopped(source);
  }
}
