"""Conversations as Lhotse's cuts: manifests of files, and SHAR.

For: `lhotse_cuts`, *.jsonl and *.jsonl.gz of cuts, whose recordings are files
below the source or below `root`; and `lhotse_shar`, folders of
cuts.000000.jsonl.gz with recording.000000.tar and target_audio.000000.tar
beside it. NeMo's duplex data is either. Not for: commands, URLs, features and
mixed cuts. `cuts` says which sides there are. Start at `LhotseCuts`.
"""

import contextlib
import posixpath
import re
import tarfile
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np

from tml_jax import errors
from tml_jax.data import calls, cuts, records, samples, source, stored
from tml_jax.data import options as options_lib
from tml_jax.data.source import BadRecording, Part, Reason
from tml_jax.streams.timeline import Timeline

_ENDS = (".jsonl", ".jsonl.gz", ".jsonl.zst", ".jsonl.xz")
_RANGE = 1 << 16
# A line of 2 kB stands for some minutes of sound.
_BYTES = 1000
_CUTS = re.compile(r"(?:^|/)cuts(\.[^/]*)?\.jsonl(\.gz|\.zst|\.xz)?$")
_UNCHANGED = ("Resample",)  # what leaves the sound as long as it is


class LhotseCuts:
  """The cuts of manifests."""

  def __init__(self, src: str, *, options: options_lib.Options):
    self._place = stored.Place(src)
    self._sounds = stored.Place(options["root"]) if options["root"] else None
    self._cuts = cuts.Cuts(options)
    self._ranges = stored.ranges(self._place.files(ends=_ENDS), size=_RANGE)

  def parts(self) -> list[Part]:
    return [
      Part(found.part.name, found.part.stamp, found.part.bytes * _BYTES)
      for found in self._ranges.values()
    ]

  def read(self, part: Part) -> Iterator[Timeline | BadRecording]:
    found = self._ranges[part.name]
    sounds = _Sounds(self._sounds or self._place, folder=found.file.folder)
    if self._sounds is not None:
      sounds = _Sounds(self._sounds, folder=self._sounds.top)
    for each in records.json_lines(self._place, found):
      try:
        if isinstance(each, BadRecording):
          raise each
        name, cut = each
        yield from self._cuts.timeline(cut, name=name, read=sounds.read)
      except BadRecording as error:
        yield error


class _Sounds:
  """Recordings of manifests; of each field the last is kept."""

  def __init__(self, place: stored.Place, *, folder: str):
    self._place, self._folder = place, folder
    self._last: dict[str, tuple[str, np.ndarray]] = {}

  def read(self, field: str, recording: Mapping[str, Any]) -> np.ndarray:
    """[channels, n] of a recording, by the order of its channels.

    Raises:
      BadRecording: it cannot be read.
    """
    for each in recording.get("transforms") or ():
      if each["name"] not in _UNCHANGED:
        raise BadRecording(
          Reason.BROKEN_METADATA,
          f"{recording['id']:.80}: is transformed by {each['name']:.80}",
        )
    sources = recording.get("sources") or [
      {"type": "file", "source": recording["path"]}
    ]
    key = repr(sources)
    if self._last.get(field, ("", None))[0] != key:
      self._last.pop(field, None)  # before the next takes its place
      self._last[field] = (key, self._whole(sources))
    return self._last[field][1]

  def _whole(self, sources: Any) -> np.ndarray:
    found: dict[int, np.ndarray] = {}
    for each in sources:
      if each["type"] != "file":
        raise BadRecording(
          Reason.MISSING,
          source.as_text(
            f"{each['source']!r:.80} is a {each['type']:.20}: files are read"
          ),
        )
      path = self._place.below(self._folder, each["source"])
      sound = calls.sound(self._place, path, channels=None)
      channels = each.get("channels") or range(len(sound))
      if len(channels) != len(sound):
        raise BadRecording(
          Reason.WRONG_CHANNELS,
          f"{each['source']:.80}: {len(sound)}, want {len(channels)}",
        )
      if len(sources) == 1:
        return sound
      found.update(zip(channels, sound, strict=True))
    longest = max(len(channel) for channel in found.values())
    return np.stack(
      [
        np.pad(found[number], (0, longest - len(found[number])))
        for number in sorted(found)
      ]
    )


class LhotseShar:
  """The shards of folders."""

  def __init__(self, src: str, *, options: options_lib.Options):
    """Lists the shards.

    Raises:
      errors.UserError: there are none.
    """
    self._place, self._cuts = stored.Place(src), cuts.Cuts(options)
    self._fields = tuple(f for f in ("recording", options["target"]) if f)
    self._shards = {
      file.name: file
      for file in self._place.files(ends=_ENDS)
      if _CUTS.search(file.path)
    }
    if not self._shards:
      raise errors.UserError(f"{src} has no cuts.*.jsonl.gz: it is no SHAR")

  def parts(self) -> list[Part]:
    folders, result = stored.Folders(self._place), []
    for file in self._shards.values():
      tars = [folders.find(path) for path in self._tars(file).values()]
      files = [file, *(tar for tar in tars if tar is not None)]
      result.append(
        Part(
          file.name,
          "; ".join(each.stamp for each in files),
          sum(each.size for each in files),
        )
      )
    return result

  def read(self, part: Part) -> Iterator[Timeline | BadRecording]:
    file = self._shards[part.name]
    lines = list(
      records.json_lines(self._place, stored.Range(file, 0, file.size))
    )
    order = {
      str(each[1].get("id")): number
      for number, each in enumerate(lines)
      if not isinstance(each, BadRecording)
    }
    try:
      with contextlib.ExitStack() as stack:
        tars = {
          field: stack.enter_context(_tar(self._place, path, order))
          for field, path in self._tars(file).items()
          if self._place.fs.isfile(path)
        }
        for number, each in enumerate(lines):
          yield from self._cut(each, number=number, tars=tars)
    except BadRecording as error:  # a tar file that is none
      yield error

  def _cut(
    self,
    each: records.Named | BadRecording,
    *,
    number: int,
    tars: Mapping[str, "_Tar"],
  ) -> Iterator[Timeline | BadRecording]:
    try:
      if isinstance(each, BadRecording):
        raise each
      found = {field: tar.at(number) for field, tar in tars.items()}

      def read(field: str, recording: Any) -> np.ndarray:
        del recording  # a placeholder
        there = found.get(field)
        if there is None:
          raise BadRecording(Reason.MISSING, f"{each[0]}: no {field} of it")
        return calls.sound_of_bytes(there[1], name=there[0], channels=None)

      yield from self._cuts.timeline(each[1], name=each[0], read=read)
    except BadRecording as error:
      yield error

  def _tars(self, file: stored.File) -> dict[str, str]:
    """Path of the tar file of each field of a shard."""
    found = _CUTS.search(file.path)
    assert found is not None  # of `_shards`
    return {
      field: posixpath.join(file.folder, f"{field}{found[1] or ''}.tar")
      for field in self._fields
    }


class _Tar:
  """The sounds of a field, which lie in the order of the cuts."""

  def __init__(
    self, opened: tarfile.TarFile, *, name: str, order: Mapping[str, int]
  ):
    self._opened, self._name, self._order = opened, name, order
    self._next: tuple[int, tuple[str, bytes] | None] = (-1, None)
    self._is_over = False

  def at(self, number: int) -> tuple[str, bytes] | None:
    """Name and data for the cut of a number; None where there is none.

    Raises:
      BadRecording: the file ends in the midst of it.
    """
    while self._next[0] < number and not self._is_over:
      try:
        self._step()
      except stored.TRANSIENT:
        raise
      except samples.BROKEN as error:
        self._is_over = True
        raise BadRecording(
          Reason.TRUNCATED, f"{self._name}: {error!r:.200}"
        ) from error
    return self._next[1] if self._next[0] == number else None

  def _step(self) -> None:
    member = self._opened.next()
    self._opened.members.clear()  # type: ignore[attr-defined]
    if member is None:
      self._is_over = True
      return
    key, end = posixpath.splitext(source.as_text(member.name))
    if not member.isfile() or end in (".json", ".nometa"):
      return
    number = self._order.get(key)
    if number is None:
      return  # of a cut that was taken out
    data = None
    if end != ".nodata" and member.size <= samples.MAX_FILE:
      file = self._opened.extractfile(member)
      data = (posixpath.basename(key) + end, file.read() if file else b"")
    self._next = (number, data)


@contextlib.contextmanager
def _tar(
  place: stored.Place, path: str, order: Mapping[str, int]
) -> Iterator[_Tar]:
  with place.opened(path) as handle:
    try:
      opened = tarfile.open(fileobj=handle, mode="r|*")
    except samples.BROKEN as error:
      name = source.as_text(posixpath.basename(path))
      raise BadRecording(Reason.TRUNCATED, f"{name}: {error!r:.200}") from error
    with opened:
      yield _Tar(
        opened, name=source.as_text(posixpath.basename(path)), order=order
      )


@source.register_importer("lhotse_cuts")
def open_cuts(src: str, *, options: Mapping[str, str]) -> LhotseCuts:
  """The manifest, or the folder of manifests, at a path or URL."""
  known = options_lib.Options(
    options, known=cuts.KNOWN | {"root": ""}, importer="lhotse_cuts"
  )
  return LhotseCuts(src, options=known)


@source.register_importer("lhotse_shar")
def open_shar(src: str, *, options: Mapping[str, str]) -> LhotseShar:
  """The folder at a path or URL."""
  known = options_lib.Options(options, known=cuts.KNOWN, importer="lhotse_shar")
  return LhotseShar(src, options=known)
