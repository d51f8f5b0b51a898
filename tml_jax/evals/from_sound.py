"""What an agent says, heard by others: words and quality of its sound.

For: `evaluate --words_from_sound=RECOGNISER --speech_quality=dnsmos`. The panel
reads the words that a model writes while it speaks; whether its sound says them
is not known from that. Not for: the recognisers (`data.mend.recognition`) or
the quality (`quality`). Start at `FromSound`, then `rows`.

A session's sound is heard once, when it is over, and what was heard is kept in
sound/FAMILY/ID.json beside its tick log. The recorded agent of the same
conversation is heard, too: a recogniser that mistakes a fifth of recorded words
cannot find fewer mistakes in a model's. Of a family:

  word_error     words of the model's text that the recogniser did not hear so:
                 edit distance over their number, in words without case and
                 punctuation. It can be above 1.
  right_text     what was due that was done in time with the right words, by the
                 model's text: `right` of the panel.
  right_sound    the same where the log has the words that were heard.
  sig, bak, ovrl marks of its speech, cut together; mean of conversations.
  recorded_*     word_error, right_sound and marks of the recorded agent's sound
                 in the scripts of the conversations that were held.

A reply is right with all its words or not at all, so one mistake in a long one
is as bad as ten. `recorded_right_sound` is what a perfect agent would have.
"""

import dataclasses
import functools
import json
import math
import pathlib
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from tml_jax import files
from tml_jax.data import source, unheard
from tml_jax.data.mend import recognition
from tml_jax.evals import kept, quality, suites
from tml_jax.evals.metrics import heard, panel, statistics
from tml_jax.evals.metrics.floor import Series
from tml_jax.evals.report import Report
from tml_jax.logs import observe, report, ticks
from tml_jax.streams import clock
from tml_jax.streams.frame import Frame
from tml_jax.streams.timeline import Role, Span, Timeline, Track

FOLDER = "sound"  # beside `workdir.TICKS`
_TITLES = {
  "word_error": "word error of the sound, %",
  "right_text": "right words, text, %",
  "right_sound": "right words, sound, %",
  "recorded_word_error": "recorded: word error, %",
  "recorded_right_sound": "recorded: right words, sound, %",
  "sig": "SIG",
  "bak": "BAK",
  "ovrl": "OVRL",
  "recorded_ovrl": "recorded: OVRL",
}
_MARKS = tuple(field.name for field in dataclasses.fields(quality.Marks))
_RIGHT = tuple(m for m in panel.METRICS if m.name == "right")


@dataclasses.dataclass(frozen=True)
class By:
  """Who hears.

  Attributes:
    recogniser: NAME or NAME:ARGUMENT; "" for none.
    measure: of quality; None for none.
  """

  recogniser: str = ""
  measure: quality.Measure | None = None

  def check(self) -> None:
    """Refuses what cannot be done, before any work.

    Raises:
      errors.UserError: a recogniser or a package is not there.
    """
    if self.recogniser:
      recognition.check(self.recogniser, language="")
    if self.measure is not None:
      _measure()

  def to_json(self) -> dict[str, str]:
    return {"recogniser": self.recogniser, "measure": str(self.measure or "")}


@functools.cache
def _measure() -> quality.Dnsmos:
  return quality.Dnsmos()


class FromSound(suites.Suite):
  """A suite whose sessions are heard, too; `by` says who hears."""

  def __init__(
    self,
    suite: suites.Suite,
    *,
    by: By,
    folder: pathlib.Path,
    render: report.Render,
  ):
    """Wraps a suite.

    Args:
      suite: what is evaluated.
      by: who hears.
      folder: where what was heard is kept, FAMILY/ID.json.
      render: sound of mel.

    Raises:
      errors.UserError: see `By.check`.
    """
    by.check()
    self.by = by
    self._suite = suite
    self._folder, self._render = folder, render
    self.users, self.agents = suite.users, suite.agents
    self.left_out = suite.left_out
    # By family and id, as composed: a user who reacts to the agent has another
    # conversation.
    self._scripts: dict[tuple[str, str], Callable[[], Timeline]] = {}

  @property
  def metrics(self) -> tuple[panel.Metric, ...]:
    return self._suite.metrics

  @property
  def corpora(self) -> tuple[str, ...]:
    return self._suite.corpora

  def items(self) -> list[suites.Item]:
    return [
      dataclasses.replace(item, load=functools.partial(self._load, item))
      for item in self._suite.items()
    ]

  def _load(self, item: suites.Item) -> Timeline:
    script = item.load()
    self._scripts[item.family, script.id] = item.load
    return script

  def asks(self, timeline: Timeline) -> bool:
    return self._suite.asks(timeline)

  def measure(self, log: ticks.Log) -> Series:
    return self._suite.measure(log)

  def keep(
    self,
    timeline: Timeline,
    *,
    frames: list[Frame],
    log: ticks.Log,
    family: str,
  ) -> None:
    self._suite.keep(timeline, frames=frames, log=log, family=family)
    sound = report.agent_audio(frames, render=self._render)
    found: dict[str, Any] = {"of": self._of(log)}
    track = Track(Role.AGENT, sound, (), spans(log), "agent")
    found["agent"] = listen(track, by=self.by, timeline=timeline)
    script = self._scripts[family, timeline.id]()
    recorded = script.track(Role.AGENT)
    if recorded is not None and len(recorded.audio):
      found["recorded"] = listen(recorded, by=self.by, timeline=script)
      words = " ".join(word.text for word in recorded.words)
      found["recorded"]["said"] = words
      found["recorded"]["series"] = self._recorded(script, found["recorded"])
    path = self._path(log, family=family)
    files.make_parents(path)
    files.write_atomically(path, content=json.dumps(found) + "\n")

  def is_kept(self, log: ticks.Log, *, family: str) -> bool:
    return (
      self._suite.is_kept(log, family=family)
      and self.found(log, family=family) is not None
    )

  def found(self, log: ticks.Log, *, family: str) -> dict[str, Any] | None:
    """What was heard of a session; None where it was not, or by others."""
    found = files.read_json(self._path(log, family=family))
    return found if found and found.get("of") == self._of(log) else None

  def _of(self, log: ticks.Log) -> dict[str, Any]:
    return {"log": log.provenance, "by": self.by.to_json()}

  def _path(self, log: ticks.Log, *, family: str) -> pathlib.Path:
    name = kept.file_name(family, identifier=log.id)
    return self._folder / family / f"{name}.json"

  def _recorded(self, script: Timeline, found: dict[str, Any]) -> list[Any]:
    """The series `right` of the recorded agent with the words heard of it."""
    if found["words"] is None:
      return []
    log = observe.from_activity(
      script,
      agent=observe.recorded_activity(script),
      says_recording=True,
    )
    heard_log = with_words(log, words=found["words"])
    return self.measure(heard_log).get("right", [])


def spans(log: ticks.Log) -> tuple[Span, ...]:
  """Where the agent sounds, in seconds."""
  return tuple(Span(run.onset, run.end) for run in heard.sounds(log))


def language(timeline: Timeline) -> str:
  """Of the agent; "en" where no agent was recorded, "" where nobody says."""
  if "language" in timeline.metadata:
    return str(timeline.metadata["language"])
  track = timeline.track(Role.AGENT)
  if track is None:
    return "en"  # benchmarks of others
  return unheard.language_of(track.voice) if ":" in track.voice else ""


def listen(track: Track, *, by: By, timeline: Timeline) -> dict[str, Any]:
  """JSON values: words with times, and marks; None for what is not known.

  Words are not known where the recogniser has not learned the language.
  """
  words, marks = None, None
  if by.recogniser:
    try:
      chosen = recognition.of_language(
        by.recogniser, language=language(timeline), name=timeline.id
      )
      words = [[w.start, w.end, w.text] for w in chosen.words_of(track)]
    except source.BadRecording:
      words = None  # counted by `rows`
  if by.measure is not None:
    speech = [
      track.audio[
        round(s.start * clock.SAMPLE_RATE) : round(s.end * clock.SAMPLE_RATE)
      ]
      for s in track.spans
    ]
    found = _measure().marks(np.concatenate([np.zeros(0), *speech]))
    marks = dataclasses.asdict(found) if found else None
  return {"words": words, "marks": marks}


def with_words(log: ticks.Log, *, words: list[Any]) -> ticks.Log:
  """A log whose agent has said [start, end, text], and nothing else.

  A word stands in the tick in which it begins; where the agent is silent there,
  in the nearest in which it sounds: text of no sound would be another reply's.
  """
  active = np.flatnonzero(log.agent)
  texts = [""] * len(log.ticks)
  for word in words if len(active) else ():
    begins = clock.TICKS.window_of(word[0])
    texts[int(active[np.argmin(np.abs(active - begins))])] += f" {word[2]}"
  return dataclasses.replace(
    log,
    ticks=tuple(
      dataclasses.replace(tick, agent_text=text)
      for tick, text in zip(log.ticks, texts, strict=True)
    ),
  )


def word_errors(found: list[str], *, said: list[str]) -> int:
  """Edit distance in words (V. I. Levenshtein, 1966)."""
  row = list(range(len(found) + 1))
  for i, word in enumerate(said):
    before, row = row, [i + 1]
    for k, other in enumerate(found):
      row.append(
        min(before[k] + (word != other), before[k + 1] + 1, row[k] + 1)
      )
  return row[-1]


@dataclasses.dataclass(frozen=True)
class Row:
  """A family, or all.

  Attributes:
    conversations: that were heard.
    unknown: of these, in languages that the recogniser has not learned; none
      where there is no recogniser.
    words: in the model's text, of the others.
    values: by name, see the module; without what nobody measured.
  """

  conversations: int
  unknown: int
  words: int
  values: dict[str, float]


def rows(result: Report, *, suite: FromSound) -> dict[str, Row]:
  """By family, and `panel.ALL`, what was heard of a report's sessions."""
  return {
    family: _row(result, family, suite=suite)
    for family in (*result.families, panel.ALL)
  }


def _row(result: Report, family: str, *, suite: FromSound) -> Row:
  pairs = [
    (item.log, suite.found(item.log, family=item.family))
    for item in result.items(family)
  ]
  found = [(log, each) for log, each in pairs if each is not None]
  known = [p for p in found if p[1]["agent"]["words"] is not None]
  values: dict[str, float] = {}
  errors, count = 0, 0
  recorded_errors, recorded_count = 0, 0
  for log, each in known:
    said = _plain("".join(tick.agent_text for tick in log.ticks))
    errors += word_errors(_heard(each["agent"]), said=said)
    count += len(said)
    if "recorded" in each:
      theirs = _plain(each["recorded"]["said"])
      recorded_errors += word_errors(_heard(each["recorded"]), said=theirs)
      recorded_count += len(theirs)
  values["word_error"] = _share(errors, count)
  values["recorded_word_error"] = _share(recorded_errors, recorded_count)
  values["right_text"] = _right([suite.measure(log) for log, _ in known])
  values["right_sound"] = _right(
    [
      suite.measure(with_words(log, words=each["agent"]["words"]))
      for log, each in known
    ]
  )
  values["recorded_right_sound"] = _right(
    [
      {"right": [tuple(pair) for pair in each["recorded"]["series"]]}
      for _, each in known
      if "recorded" in each
    ]
  )
  for who, prefix in (("agent", ""), ("recorded", "recorded_")):
    marks = [each.get(who, {}).get("marks") for _, each in found]
    marks = [mark for mark in marks if mark]
    for name in _MARKS:
      mean = np.mean([mark[name] for mark in marks]) if marks else math.nan
      values[f"{prefix}{name}"] = float(mean)
  unknown = len(found) - len(known) if suite.by.recogniser else 0
  measured = {k: v for k, v in values.items() if not math.isnan(v)}
  return Row(len(found), unknown, count, measured)


def _plain(text: str) -> list[str]:
  return heard.plain(text).split()


def _heard(found: Mapping[str, Any]) -> list[str]:
  return _plain(" ".join(word[2] for word in found["words"]))


def _share(errors: int, count: int) -> float:
  return errors / count if count else math.nan


def _right(series: list[Series]) -> float:
  found = statistics.summarise(series, metrics=_RIGHT, resamples=0)
  return found["right"].value if series else math.nan


def text(found: Mapping[str, Row]) -> str:
  """The rows as a table; below it what is not in them."""
  names = [n for n in _TITLES if any(n in row.values for row in found.values())]
  lines = [["of the sound", "n", "words", *(_TITLES[name] for name in names)]]
  for family, row in found.items():
    cells = [family, str(row.conversations), str(row.words)]
    for name in names:
      value = row.values.get(name)
      scale, digits = (1, 2) if name.endswith(_MARKS) else (100, 1)
      cells.append("-" if value is None else f"{scale * value:.{digits}f}")
    lines.append(cells)
  widths = [max(len(line[i]) for line in lines) for i in range(len(lines[0]))]
  result = [
    "  ".join(
      cell.ljust(width) if i == 0 else cell.rjust(width)
      for i, (cell, width) in enumerate(zip(line, widths, strict=True))
    ).rstrip()
    for line in lines
  ]
  unknown = found[panel.ALL].unknown if panel.ALL in found else 0
  if unknown:
    result.append(
      f"{unknown} conversations in languages that the recogniser has not"
      " learned: their words are not counted"
    )
  return "\n".join(result)


def as_json(found: Mapping[str, Row]) -> dict[str, Any]:
  """JSON values by family."""
  return {family: dataclasses.asdict(row) for family, row in found.items()}
