"""Is a WAV file as long as its header says?

For: `media`, as FFmpeg reads what there is and says nothing. Not for: other
formats, whose lengths FFmpeg knows. Start reading at `check`.
"""

import os
import struct
from typing import BinaryIO

from tml_jax.data import source

# Bytes below 2^31 and 2^32 that mean "to the end" in a WAV written to a pipe:
# espeak-ng and sox write 0x7ffff000, others the largest less their header.
_STREAMED = 1 << 16
_MOST_CHUNKS = 1000


def check(file: BinaryIO, *, name: str) -> bool:
  """Refuses a WAV file shorter than its header says; FFmpeg reads on.

  Programs that write to a pipe cannot know the size: they declare 0 or about
  the most, and the samples go to the end. Some recorders count the header in.

  Returns:
    Whether the header's length is one: always of other formats.
  """
  whole = file.seek(0, os.SEEK_END)
  file.seek(0)
  try:
    riff, wave = file.read(8), file.read(4)
    if riff[:4] != b"RIFF" or wave != b"WAVE":
      return True
    for _ in range(_MOST_CHUNKS):
      header = file.read(8)
      if len(header) < 8:
        break
      tag, size = struct.unpack("<4sI", header)
      if tag == b"data":
        start = file.tell()
        return _is_data_size(
          size,
          held=whole - start,
          start=start,
          is_riff_whole=struct.unpack("<I", riff[4:])[0] + 8 == whole,
          name=name,
        )
      file.seek(size + size % 2, os.SEEK_CUR)
  finally:
    file.seek(0)
  raise source.BadRecording(
    source.Reason.TRUNCATED, f"{name} ends before its samples"
  )


def _is_data_size(
  size: int, *, held: int, start: int, is_riff_whole: bool, name: str
) -> bool:
  """Whether a data chunk has the size that is declared; see above."""
  if not size:
    if is_riff_whole or not held:
      raise source.BadRecording(source.Reason.EMPTY, f"{name} has no samples")
    return False
  if size <= held:
    return True
  streamed = any(top - _STREAMED <= size < top for top in (1 << 31, 1 << 32))
  if streamed or size - held in (start, start - 8):
    return False
  raise source.BadRecording(
    source.Reason.TRUNCATED,
    f"{name} declares {size} bytes of samples and holds {held}",
  )
