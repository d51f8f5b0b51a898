"""Clips of people who talk: pictures, sound and subtitles on one clock.

For: .mp4, .mkv, .webm, .mov and .avi below a folder; words are in NAME.srt or
NAME.vtt beside a clip, or in its own first stream of subtitles. Not for: clips
with captions of what is seen (`video_text`). Start at `Video`.

Roles: `role` says whose voice the sound is: `user`, who talks to the camera,
`environment`, which is heard and nobody's turn, or `agent`. Other options:
`fps`, frames a second that are kept; `seconds` that are kept of a clip.
"""

import posixpath
from collections.abc import Iterator, Mapping

from tml_jax.data import calls, media, pairs, source, stored, subtitles
from tml_jax.data import options as options_lib
from tml_jax.data.source import BadRecording, Note, Part
from tml_jax.streams import clock
from tml_jax.streams.timeline import Role, Timeline

ENDS = (".mp4", ".mkv", ".webm", ".mov", ".avi")
KIND = "video"
_KNOWN = {"role": "", "fps": "1", "seconds": "3600"}


class Video(calls.Listed):
  """The clips of a file or folder."""

  def __init__(self, src: str, *, options: options_lib.Options):
    """Lists the clips.

    Raises:
      errors.UserError: there are none, or nothing says whose voice it is.
    """
    self._place, self._options = stored.Place(src), options
    role = options.choice("role", among=tuple(str(role) for role in Role))
    self._role = Role(role)
    self._size = options.size("size")
    self._fps = options.number("fps", low=0.01, high=30)
    self._seconds = options.number("seconds", low=0.2, high=calls.MAX_SECONDS)
    folders = stored.Folders(self._place)
    self._parts = [
      calls.call(file.name, [file, _beside(file, folders=folders)])
      for file in self._place.files(ends=ENDS)
    ]

  def read(self, part: Part) -> Iterator[Timeline | BadRecording]:
    assert isinstance(part, calls.Call)  # of `parts`
    try:
      yield self._timeline(part)
    except BadRecording as error:
      yield error

  def _timeline(self, part: calls.Call) -> Timeline:
    path, beside = part.paths
    height, width = self._size
    with self._place.opened(path) as file:
      frames = media.pictures_of_file(
        file,
        name=part.name,
        fps=self._fps,
        seconds=self._seconds,
        height=height,
        width=width,
        limits=calls.LIMITS,
      )
      file.seek(0)
      sound = media.sound_of_file(file, name=part.name, limits=calls.LIMITS)
      file.seek(0)
      if not beside:
        said = subtitles.inside(file, name=part.name, limits=calls.LIMITS)
    if beside:
      data = self._place.read(beside, limit=calls.MAX_TEXT)
      name = source.as_text(posixpath.basename(beside))
      said = subtitles.parse(data, name=name)
    calls.checked(sound, channels=None, name=part.name)
    kept = pairs.mono(sound)[: round(self._seconds * clock.SAMPLE_RATE)]
    notes = calls.Notes()
    if not said:
      notes[Note.NO_WORDS] += 1
    key = str(self._role)
    if len(kept) < sound.shape[1]:  # what is said later is cut off with it
      said = [each for each in said if float(str(each.start)) < self._seconds]
    (item,) = calls.timelines(
      part.name,
      {key: calls.Side(kept, said=said, voice=part.name)},
      among=[{key: self._role}],
      metadata=self._options.metadata(KIND),
      notes=notes,
      video={"": frames, key: frames},
      lasts=frames[-1].time,
    )
    return item


def _beside(
  file: stored.File, *, folders: stored.Folders
) -> stored.File | None:
  """The file of subtitles of a clip."""
  stem = posixpath.splitext(file.path)[0]
  found = (folders.find(f"{stem}.{end}") for end in subtitles.ENDS)
  return next((each for each in found if each is not None), None)


@source.register_importer("video")
def open_clips(src: str, *, options: Mapping[str, str]) -> Video:
  """The clip, or the folder of clips, at a path or URL."""
  known = options_lib.Options(options, known=_KNOWN, importer="video")
  return Video(src, options=known)
