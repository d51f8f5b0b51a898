"""Speech with its transcript, in the layouts that people have.

For: recognition (`direction=hear`: the speech is heard, then its transcript is
shown) and synthesis (`direction=speak`: the text is typed, then the agent says
it). Not for: conversations (`stereo`). Start at `SpeechText`. `layout` is

  jsonl        *.jsonl, a line {"audio": "a/1.wav", "text": "...",
               "offset": 1.5, "duration": 2.0}, the last two only for a stretch
               of a recording
  tsv          *.tsv with a header line; columns as the fields of jsonl
  kaldi        a data folder: text, wav.scp, segments where there is one, sorted
               as Kaldi has them; commands in wav.scp are not run
  librispeech  SPEAKER/CHAPTER/SPEAKER-CHAPTER.trans.txt beside ID.flac
  emilia       LANGUAGE/*.jsonl, a line {"id", "wav", "text", "speaker",
               "language", ...}
  webdataset   *.tar with NAME.wav (or .flac, .mp3, ...) and NAME.txt, or
               NAME.json, whose field `text` is taken

Other options: `audio`, `text`, fields of jsonl and columns of tsv; `root`,
where sounds lie if not beside what names them; `delay` in seconds.
"""

import dataclasses
import math
import posixpath
from collections.abc import Callable, Iterator, Mapping
from typing import Any, Protocol

import numpy as np

from tml_jax import errors
from tml_jax.data import media, pairs, records, samples, source, stored
from tml_jax.data import options as options_lib
from tml_jax.data.source import BadRecording, Part, Reason
from tml_jax.streams import clock
from tml_jax.streams.document import PART_OF
from tml_jax.streams.timeline import Timeline

LAYOUTS = ("jsonl", "tsv", "kaldi", "librispeech", "emilia", "webdataset")
_KNOWN = {
  "layout": "",
  "direction": "hear",
  "delay": "0.4",
  "audio": "audio",
  "text": "text",
  "root": "",
}
# Of a manifest, whose lines each stand for a file of sound.
_RANGE = 1 << 17
_MAX_FILE = 1 << 30  # bytes of a recording


@dataclasses.dataclass(frozen=True)
class Pair:
  """A transcript, and where its speech is.

  Attributes:
    name: of the pair.
    sound: names the recording; the same for pairs of one recording.
    read: gives its bytes.
    text: the transcript.
    start: seconds in the recording.
    stop: seconds in the recording; infinite for its end.
    voice: who speaks, if known.
    language: if known.
  """

  name: str
  sound: str
  read: Callable[[], bytes]
  text: str
  start: float = 0.0
  stop: float = math.inf
  voice: str = ""
  language: str = ""


class Layout(Protocol):
  """How pairs lie on disk."""

  def parts(self) -> list[Part]: ...

  def read(self, part: Part) -> Iterator[Pair | BadRecording]: ...


class SpeechText:
  """The pairs of a file or folder, as timelines."""

  def __init__(self, src: str, *, options: options_lib.Options):
    self._options = options
    self._is_heard = (
      options.choice("direction", among=("hear", "speak")) == "hear"
    )
    self._delay = options.number("delay", low=0, high=60)
    layout = options.choice("layout", among=LAYOUTS)
    self._layout: Layout = _LAYOUTS[layout](stored.Place(src), options)

  def parts(self) -> list[Part]:
    return self._layout.parts()

  def read(self, part: Part) -> Iterator[Timeline | BadRecording]:
    last = ("", np.zeros((1, 0), np.float32))  # one recording has many pairs
    for pair in self._layout.read(part):
      if isinstance(pair, BadRecording):
        yield pair
        continue
      try:
        if last[0] != pair.sound:
          name = posixpath.basename(pair.sound)
          last = (
            pair.sound,
            media.sound_of_bytes(pair.read(), name=source.as_text(name)),
          )
        yield self._timeline(pair, last[1])
      except BadRecording as error:
        yield error

  def _timeline(self, pair: Pair, sound: np.ndarray) -> Timeline:
    start, stop = (
      min(round(s * clock.SAMPLE_RATE), sound.shape[1])
      if math.isfinite(s)
      else sound.shape[1]
      for s in (pair.start, pair.stop)
    )
    metadata = self._options.metadata("speech_text", language=pair.language)
    if pair.start > 0 or math.isfinite(pair.stop):
      # Other stretches of the recording are of the same split.
      metadata[PART_OF] = source.as_text(posixpath.basename(pair.sound))
    about = pairs.About(
      id=pair.name,
      text=" ".join(pair.text.split()),
      delay=self._delay,
      metadata=metadata,
      voice=pair.voice,
    )
    speech = pairs.mono(sound[:, start:stop])
    make = pairs.heard if self._is_heard else pairs.spoken
    return make(speech, about=about)


class _Sounds:
  """Files of sound that a manifest names."""

  def __init__(self, place: stored.Place, options: options_lib.Options):
    root = options["root"]
    self._place = stored.Place(root) if root else place
    self._has_root = bool(root)

  def pair(self, folder: str, path: str, **fields: Any) -> Pair:
    """A pair whose sound is named in a manifest that lies in `folder`.

    Raises:
      BadRecording: the name leaves the source.
    """
    top = self._place.root if self._has_root else folder
    found = self._place.below(top, path)

    def read() -> bytes:
      return self._place.read(found, limit=_MAX_FILE)

    return Pair(sound=found, read=read, **fields)


class _Manifest:
  """Records with a field for the sound and one for its transcript."""

  ends: tuple[str, ...] = (".jsonl",)

  def __init__(self, place: stored.Place, options: options_lib.Options):
    self._place, self._options = place, options
    self._sounds = _Sounds(place, options)
    self._ranges = stored.ranges(place.files(ends=self.ends), size=_RANGE)

  def parts(self) -> list[Part]:
    return [found.part for found in self._ranges.values()]

  def read(self, part: Part) -> Iterator[Pair | BadRecording]:
    found = self._ranges[part.name]
    return source.each(
      self._records(found),
      lambda named: self._pair(*named, folder=found.file.folder),
    )

  def _records(
    self, found: stored.Range
  ) -> Iterator[records.Named | BadRecording]:
    return records.json_lines(self._place, found)

  def _pair(self, name: str, record: dict[str, Any], *, folder: str) -> Pair:
    start = _seconds(record.get("offset"), name=name, missing=0.0)
    length = _seconds(record.get("duration"), name=name, missing=math.inf)
    # Many manifests tell the length of a whole recording, rounded.
    is_stretch = record.get("offset") not in (None, "")
    return self._sounds.pair(
      folder,
      records.text_of(
        record, self._options["audio"], name=name, missing=Reason.MISSING
      ),
      name=name,
      text=records.text_of(record, self._options["text"], name=name),
      start=start,
      stop=start + length if is_stretch else math.inf,
    )


def _seconds(value: object, *, name: str, missing: float) -> float:
  """A time of a manifest, as a number or as text.

  Raises:
    BadRecording: it is none.
  """
  if value is None or value == "":
    return missing
  try:
    seconds = float(value)  # type: ignore[arg-type]  # or it raises
  except (TypeError, ValueError, OverflowError):
    seconds = math.nan
  if not 0 <= seconds < math.inf:
    raise BadRecording(
      Reason.BROKEN_METADATA, f"{name}: {value!r:.80} are no seconds"
    )
  return seconds


class _Table(_Manifest):
  """The same as a table with tabs, which has no quotes."""

  ends = (".tsv",)

  def _records(
    self, found: stored.Range
  ) -> Iterator[records.Named | BadRecording]:
    names: list[str] = []
    head = stored.Range(found.file, 0, 0)  # its first line
    for line in stored.lines(self._place, head):
      if isinstance(line, BadRecording):
        yield line
        return
      names = line.data.decode(errors="replace").split("\t")
    for line in stored.lines(self._place, found):
      if isinstance(line, BadRecording):
        yield line
        continue
      if line.at == 0 or not line.data.strip():
        continue
      name = f"{found.file.name}@{line.at}"
      try:
        cells = stored.text(line.data, name=name).split("\t")
      except BadRecording as error:
        yield error
        continue
      if len(cells) != len(names):
        yield BadRecording(
          Reason.BROKEN_METADATA,
          f"{name}: {len(cells)} columns, the header has {len(names)}",
        )
        continue
      yield name, dict(zip(names, cells, strict=True))


class _Emilia(_Manifest):
  """Emilia's lines, whose sounds lie below their file."""

  def _pair(self, name: str, record: dict[str, Any], *, folder: str) -> Pair:
    return self._sounds.pair(
      folder,
      records.text_of(record, "wav", name=name, missing=Reason.MISSING),
      name=records.text_of(record, "id", name=name),
      text=records.text_of(record, "text", name=name),
      voice=records.text_of(record, "speaker", name=name),
      language=records.text_of(record, "language", name=name),
    )


class _LibriSpeech:
  """A file of transcripts for each chapter."""

  def __init__(self, place: stored.Place, options: options_lib.Options):
    del options
    self._place = place
    self._files = {
      file.name: file for file in place.files(ends=(".trans.txt",))
    }

  def parts(self) -> list[Part]:
    return [
      Part(file.name, file.stamp, file.size) for file in self._files.values()
    ]

  def read(self, part: Part) -> Iterator[Pair | BadRecording]:
    file = self._files[part.name]
    for found in _keyed(self._place, stored.Range(file, 0, file.size)):
      if isinstance(found, BadRecording):
        yield found
        continue
      key, text = found
      path = posixpath.join(file.folder, f"{key}.flac")

      def read(path: str = path) -> bytes:
        return self._place.read(path, limit=_MAX_FILE)

      yield Pair(key, path, read, text, voice=key.split("-")[0], language="en")


class _Kaldi:
  """A data folder; a part is a stretch of `text` and what it needs."""

  def __init__(self, place: stored.Place, options: options_lib.Options):
    self._place, self._sounds = place, _Sounds(place, options)
    files = {
      file.name: file
      for file in place.files(ends=("text", "wav.scp", "segments", "utt2spk"))
    }
    self._text, self._scp = (
      _needed(place, files, name) for name in ("text", "wav.scp")
    )
    self._segments = files.get("segments")
    self._speakers = files.get("utt2spk")
    self._ranges = stored.ranges([self._text], size=_RANGE)

  def parts(self) -> list[Part]:
    others = (self._scp, self._segments, self._speakers)
    stamp = "; ".join(file.stamp for file in others if file)
    return [
      dataclasses.replace(found.part, stamp=f"{found.part.stamp}; {stamp}")
      for found in self._ranges.values()
    ]

  def read(self, part: Part) -> Iterator[Pair | BadRecording]:
    texts: dict[str, str] = {}
    for found in _keyed(self._place, self._ranges[part.name]):
      if isinstance(found, BadRecording):
        yield found
      else:
        texts[found[0]] = found[1]
    segments = self._rows(self._segments, {*texts})
    speakers = self._rows(self._speakers, {*texts})
    owners = {k: segments.get(k, k).split(" ")[0] for k in texts}
    sounds = self._rows(self._scp, {*owners.values()})
    for key, text in texts.items():
      try:
        yield self._pair(
          key,
          text,
          sound=sounds.get(owners[key], ""),
          segment=segments.get(key),
          voice=speakers.get(key, ""),
        )
      except BadRecording as error:
        yield error

  def _pair(
    self, key: str, text: str, *, sound: str, segment: str | None, voice: str
  ) -> Pair:
    if not text.strip():
      raise BadRecording(Reason.NO_TEXT, f"{key} in {self._text.name}")
    if not sound or sound.rstrip().endswith("|"):
      raise BadRecording(
        Reason.MISSING,
        f"{key}: {sound!r:.80} in wav.scp; write files, commands are not run",
      )
    start, stop = 0.0, math.inf
    if self._segments is not None:
      times = (segment or "").split(" ")[1:]
      if len(times) != 2:
        raise BadRecording(
          Reason.BROKEN_METADATA, f"{key}: {segment!r:.80} in segments"
        )
      start, stop = (_seconds(t, name=key, missing=math.nan) for t in times)
    return self._sounds.pair(
      self._place.root,
      sound.strip(),
      name=key,
      text=text,
      start=start,
      stop=stop,
      voice=voice,
    )

  def _rows(self, file: stored.File | None, keys: set[str]) -> dict[str, str]:
    """What stands behind these keys in a sorted file."""
    if file is None or not keys:
      return {}
    last, rows = max(key.encode() for key in keys), {}
    start = _before(self._place, file, min(key.encode() for key in keys))
    for found in _keyed(self._place, stored.Range(file, start, file.size)):
      if isinstance(found, BadRecording):
        continue  # a pair that needs it says so
      if found[0] in keys:
        rows[found[0]] = found[1]
      if found[0].encode() > last:
        break
    return rows


def _needed(
  place: stored.Place, files: Mapping[str, stored.File], name: str
) -> stored.File:
  if name not in files:
    raise errors.UserError(
      f"{place.src} has no {name}: it is no data folder of Kaldi"
    )
  return files[name]


def _before(place: stored.Place, file: stored.File, key: bytes) -> int:
  """A byte before the line of `key` in a sorted file, and near it.

  `stored.lines` begins with the line behind it.
  """
  low, high = 0, file.size
  while high - low > 1 << 16:
    middle = (low + high) // 2
    # The first line that begins behind the middle.
    line = next(
      stored.lines(place, stored.Range(file, middle, file.size)), None
    )
    if isinstance(line, stored.Line) and line.data.split(b" ")[0] < key:
      low = middle
    else:
      high = middle
  return low


def _keyed(
  place: stored.Place, found: stored.Range
) -> Iterator[tuple[str, str] | BadRecording]:
  """Key and rest of each line; spaces and tabs are alike."""
  for line in stored.lines(place, found):
    try:
      if isinstance(line, BadRecording):
        raise line
      name = f"{found.file.name}@{line.at}"
      words = stored.text(line.data, name=name).split()
    except BadRecording as error:
      yield error
      continue
    if len(words) == 1 and line.data.strip():
      yield BadRecording(Reason.NO_TEXT, f"{name}: {words[0]:.80}")
    elif words:
      yield words[0], " ".join(words[1:])


class _WebDataset:
  """Tar files with a sound and a text or a record of each name."""

  def __init__(self, place: stored.Place, options: options_lib.Options):
    self._field = options["text"]
    self._tars = samples.Tars(place, ends=(*samples.SOUNDS, "txt", "json"))

  def parts(self) -> list[Part]:
    return self._tars.parts()

  def read(self, part: Part) -> Iterator[Pair | BadRecording]:
    return source.each(self._tars.read(part), self._pair)

  def _pair(self, sample: samples.Sample) -> Pair:
    sound = sample.first(samples.SOUNDS)
    if sound is None:
      raise BadRecording(Reason.MISSING, f"{sample.name}: no sound")
    name, data = sound
    text, language = sample.text(self._field, missing=Reason.NO_TEXT)
    return Pair(sample.name, name, lambda: data, text, language=language)


_LAYOUTS: dict[str, Callable[[stored.Place, options_lib.Options], Layout]] = (
  dict(
    zip(
      LAYOUTS,
      (_Manifest, _Table, _Kaldi, _LibriSpeech, _Emilia, _WebDataset),
      strict=True,
    )
  )
)


@source.register_importer("speech_text")
def open_pairs(src: str, *, options: Mapping[str, str]) -> SpeechText:
  """The file or folder at a path or URL."""
  known = options_lib.Options(options, known=_KNOWN, importer="speech_text")
  return SpeechText(src, options=known)
