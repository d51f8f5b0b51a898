/**
 * ZIP archives whose files are stored as they are.
 *
 * For: one download of a whole session. Not for: compressing (JPEG would not
 * shrink, speech hardly) or archives beyond 4 GB. Source: PKWARE's
 * APPNOTE.TXT 6.3.10, sections 4.3.7, 4.3.12 and 4.3.16; names are UTF-8
 * (bit 11).
 */

const TABLE = new Uint32Array(256).map((_, n) => {
  for (let k = 0; k < 8; k++) n = n & 1 ? 0xedb88320 ^ (n >>> 1) : n >>> 1;
  return n >>> 0;
});

/** CRC-32 of bytes, as ZIP and PNG have it. */
export function crc32(bytes) {
  let crc = 0xffffffff;
  for (const byte of bytes) crc = TABLE[(crc ^ byte) & 255] ^ (crc >>> 8);
  return (crc ^ 0xffffffff) >>> 0;
}

/** Date and time as MS-DOS wrote them: two seconds are the finest. */
function dosTime(date) {
  const time =
    (date.getHours() << 11) |
    (date.getMinutes() << 5) |
    (date.getSeconds() >> 1);
  const year = Math.max(0, date.getFullYear() - 1980);
  return {
    time,
    day: (year << 9) | ((date.getMonth() + 1) << 5) | date.getDate(),
  };
}

/** Little-endian numbers as bytes; `fields` are [value, width] pairs. */
function record(fields) {
  const width = fields.reduce((sum, [, bytes]) => sum + bytes, 0);
  const view = new DataView(new ArrayBuffer(width));
  let at = 0;
  for (const [value, bytes] of fields) {
    if (bytes === 2) view.setUint16(at, value, true);
    else view.setUint32(at, value, true);
    at += bytes;
  }
  return new Uint8Array(view.buffer);
}

/** Parts of an archive, for a Blob; `files` are {name, bytes}. */
export function zip(files, date = new Date()) {
  const { time, day } = dosTime(date);
  const parts = [];
  const directory = [];
  let offset = 0;
  let listed = 0;
  for (const { name, bytes } of files) {
    const letters = new TextEncoder().encode(name);
    const common = [
      [20, 2], // version needed
      [1 << 11, 2], // names are UTF-8
      [0, 2], // stored
      [time, 2],
      [day, 2],
      [crc32(bytes), 4],
      [bytes.length, 4],
      [bytes.length, 4],
      [letters.length, 2],
      [0, 2], // extra field
    ];
    const header = record([[0x04034b50, 4], ...common]);
    const entry = record([
      [0x02014b50, 4],
      [20, 2], // version that made it
      ...common,
      [0, 2], // comment
      [0, 2], // disk
      [0, 2],
      [0, 4], // attributes
      [offset, 4],
    ]);
    parts.push(header, letters, bytes);
    directory.push(entry, letters);
    offset += header.length + letters.length + bytes.length;
    listed += entry.length + letters.length;
  }
  const end = record([
    [0x06054b50, 4],
    [0, 2],
    [0, 2],
    [files.length, 2],
    [files.length, 2],
    [listed, 4],
    [offset, 4],
    [0, 2],
  ]);
  return [...parts, ...directory, end];
}
