/**
 * WAV files of 16-bit samples. For: the download. Not for: reading them.
 */

/** The bytes of a RIFF file; `channels` are Int16Arrays of equal length. */
export function wav(channels, rate) {
  const count = channels[0].length;
  const width = 2 * channels.length;
  const bytes = new Uint8Array(44 + count * width);
  const view = new DataView(bytes.buffer);
  const letters = (at, text) => {
    for (let i = 0; i < text.length; i++) bytes[at + i] = text.charCodeAt(i);
  };
  letters(0, "RIFF");
  view.setUint32(4, 36 + count * width, true);
  letters(8, "WAVEfmt ");
  view.setUint32(16, 16, true); // bytes of the format
  view.setUint16(20, 1, true); // PCM
  view.setUint16(22, channels.length, true);
  view.setUint32(24, rate, true);
  view.setUint32(28, rate * width, true);
  view.setUint16(32, width, true);
  view.setUint16(34, 16, true); // bits
  letters(36, "data");
  view.setUint32(40, count * width, true);
  let at = 44;
  for (let i = 0; i < count; i++) {
    for (const channel of channels) {
      view.setInt16(at, channel[i], true);
      at += 2;
    }
  }
  return bytes;
}
