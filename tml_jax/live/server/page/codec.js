/**
 * Sound and bytes: base64, 16-bit PCM, floats.
 *
 * For: what goes over the socket and into files. Not for: rates
 * (`resampler.js`). Nothing here knows the page.
 */

const STEP = 0x2000; // bytes that one call of fromCharCode takes

/** Base64 of bytes (a Uint8Array). */
export function toBase64(bytes) {
  let text = "";
  for (let i = 0; i < bytes.length; i += STEP) {
    text += String.fromCharCode(...bytes.subarray(i, i + STEP));
  }
  return btoa(text);
}

/** The bytes of base64 text; throws where it is none. */
export function fromBase64(text) {
  const letters = atob(text);
  const bytes = new Uint8Array(letters.length);
  for (let i = 0; i < letters.length; i++) bytes[i] = letters.charCodeAt(i);
  return bytes;
}

/** Floats in [-1, 1] as 16-bit integers; what is louder is clipped. */
export function toPcm16(floats) {
  const pcm = new Int16Array(floats.length);
  for (let i = 0; i < floats.length; i++) {
    const value = Math.max(-1, Math.min(1, floats[i]));
    pcm[i] = Math.round(value * 32767);
  }
  return pcm;
}

/** 16-bit integers as floats in [-1, 1]. */
export function fromPcm16(pcm) {
  const floats = new Float32Array(pcm.length);
  for (let i = 0; i < pcm.length; i++) floats[i] = pcm[i] / 32767;
  return floats;
}

/** Base64 of 16-bit samples, least significant byte first. */
export function encodePcm16(pcm) {
  const bytes = new Uint8Array(pcm.length * 2);
  const view = new DataView(bytes.buffer);
  for (let i = 0; i < pcm.length; i++) view.setInt16(2 * i, pcm[i], true);
  return toBase64(bytes);
}

/** 16-bit samples of base64 text; an odd last byte is left out. */
export function decodePcm16(text) {
  const bytes = fromBase64(text);
  const view = new DataView(bytes.buffer);
  const pcm = new Int16Array(bytes.length >> 1);
  for (let i = 0; i < pcm.length; i++) pcm[i] = view.getInt16(2 * i, true);
  return pcm;
}

/** Loudness of floats in dB of full scale; -100 for nothing. */
export function decibels(floats) {
  let power = 0;
  for (let i = 0; i < floats.length; i++) power += floats[i] * floats[i];
  if (!floats.length || power === 0) return -100;
  return Math.max(-100, 10 * Math.log10(power / floats.length));
}
