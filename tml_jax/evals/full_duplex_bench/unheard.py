"""The four layouts of Full-Duplex-Bench v1.0, spoken by voices nobody heard.

`python -m tml_jax.evals.full_duplex_bench.unheard --data_dir=DATA --out=DIR`
writes clips of pauses, turns, backchannels and interruptions into the folders
and files of the published data; `evaluate --suite=fdb --fdb_root=DIR` and the
benchmark's own scripts read them. Not for: the published recordings, which
these are no part of: DIR/made.json says so. Start at `write`.

Voices are the English ones of `data.unheard`, sentences those that training
holds out. All draws come from (seed, task, clip). A clip of each layout:

  pauses          a turn that is cut at the quietest moment of a sentence, with
                  silence there, and ends with the clip: whoever takes over in
                  the clip has taken over in the turn.
  turn taking     a turn, then silence.
  backchannel     sentences with gaps between them, up to the clip's end.
  interruption    a turn, silence for a reply to begin, another sentence,
                  silence.

`icc_gt_distribution.json` says where a listener may give a backchannel: evenly
in the second behind each sentence but the last. That is a rule, and nobody was
asked: the distance to it compares agents, and says nothing of humans.
"""

import dataclasses
import json
import pathlib
import shutil
import zlib
from collections.abc import Callable, Mapping, Sequence

import numpy as np
from absl import flags

from tml_jax import errors, files, registry
from tml_jax import workdir as workdir_lib
from tml_jax.config import Config
from tml_jax.config import flags as config_flags
from tml_jax.data import audio as audio_lib
from tml_jax.data import corpus, source, splits, unheard
from tml_jax.evals.full_duplex_bench import folders as bench
from tml_jax.evals.full_duplex_bench.folders import Task
from tml_jax.logs import sound as sound_lib
from tml_jax.streams import clock
from tml_jax.streams.timeline import Timeline

_CLIPS = flags.DEFINE_integer(
  "clips", 12, "Clips of each layout.", lower_bound=1
)
_VOICES = flags.DEFINE_list(
  "unheard_voices",
  [],
  "Of the unheard voices of data.unheard; all English ones.",
)

MADE = "made.json"
SENTENCE = (1.0, 5.0)  # seconds that a sentence may last
LEAD = 0.4  # seconds of silence at the start
BETWEEN = (0.1, 0.2)  # sentences of a turn
PAUSE = (0.8, 2.0)
GAP = (0.5, 0.9)  # between sentences of somebody who tells something
REPLY = (2.0, 3.0)  # for the agent to begin, before it is interrupted
ROOM = 4.0  # behind what is to be answered
TAIL = 0.2
SENTENCES = 6  # of somebody who tells something
LISTENS = 1.0  # seconds behind a sentence in which listeners sound
_FRAME = clock.SAMPLE_RATE // 100


@dataclasses.dataclass
class _Clip:
  """A clip as it grows; times in seconds."""

  parts: list[np.ndarray] = dataclasses.field(default_factory=list)
  words: list[tuple[str, float, float]] = dataclasses.field(
    default_factory=list
  )
  texts: list[str] = dataclasses.field(default_factory=list)

  @property
  def now(self) -> float:
    return sum(map(len, self.parts)) / clock.SAMPLE_RATE

  def wait(self, seconds: float) -> None:
    count = round(seconds * clock.SAMPLE_RATE)
    self.parts.append(np.zeros(count, np.float32))

  def say(self, sentence: Timeline, *, pause: float = 0.0) -> tuple[float, ...]:
    """Says it; returns [start, end] of the pause that was put into it."""
    track, start = sentence.tracks[0], self.now
    cut = _quietest(track.audio) if pause else len(track.audio)
    at = cut / clock.SAMPLE_RATE
    self.parts.append(track.audio[:cut])
    found = (self.now, self.now + pause)
    if pause:
      self.wait(pause)
      self.parts.append(track.audio[cut:])
    for word in track.words:
      late = start + (pause if word.start >= at else 0.0)
      self.words.append((word.text, late + word.start, late + word.end))
    self.texts.append(sentence.metadata["text"])
    return found


def _quietest(audio: np.ndarray) -> int:
  """Sample in the middle third at which 30 ms are the least loud."""
  level = audio_lib.levels(audio)
  near = np.convolve(level, np.ones(3), mode="same")
  first, stop = len(level) // 3, max(len(level) * 2 // 3, len(level) // 3 + 1)
  return (first + int(np.argmin(near[first:stop]))) * _FRAME


Choose = Callable[[], Timeline]


def _pauses(clip: _Clip, choose: Choose, random: np.random.Generator):
  clip.wait(LEAD)
  pause = clip.say(choose(), pause=random.uniform(*PAUSE))
  clip.wait(random.uniform(*BETWEEN))
  clip.say(choose())
  clip.wait(TAIL)
  return "pause.json", [{"text": "[PAUSE]", "timestamp": _times(pause)}]


def _turn(clip: _Clip, choose: Choose, random: np.random.Generator):
  clip.wait(LEAD)
  _speak(clip, choose, random)
  end = clip.now
  clip.wait(ROOM)
  mark = {"text": "[TURN-TAKING]", "timestamp": _times((end, clip.now))}
  return "turn_taking.json", [mark]


def _interruption(clip: _Clip, choose: Choose, random: np.random.Generator):
  clip.wait(LEAD)
  _speak(clip, choose, random)
  clip.wait(random.uniform(*REPLY))
  context, start = " ".join(clip.texts), clip.now
  clip.say(choose())
  end = clip.now
  clip.wait(ROOM)
  return "interrupt.json", [
    {
      "context": context,
      "interrupt": clip.texts[-1],
      "timestamp": _times((start, end)),
    }
  ]


def _backchannel(clip: _Clip, choose: Choose, random: np.random.Generator):
  """Its content is for `HUMAN`: shares of bins of 200 ms."""
  clip.wait(LEAD)
  ends = []
  for _ in range(SENTENCES):
    clip.say(choose())
    ends.append(clip.now)
    clip.wait(random.uniform(*GAP))
  clip.wait(TAIL)
  shares = np.zeros(clock.TICKS.window_of(clip.now) + 1)
  for end in ends[:-1]:
    first = clock.TICKS.window_of(end)
    shares[first : clock.TICKS.num_windows(end + LISTENS)] += 1
  return bench.HUMAN, (shares / shares.sum()).round(6).tolist()


def _speak(clip: _Clip, choose: Choose, random: np.random.Generator) -> None:
  """A turn of two sentences."""
  clip.say(choose())
  clip.wait(random.uniform(*BETWEEN))
  clip.say(choose())


def _times(span: tuple[float, ...]) -> list[float]:
  return [round(time, 3) for time in span]


LAYOUTS = {
  Task.SYNTHETIC_PAUSE: _pauses,
  Task.BACKCHANNEL: _backchannel,
  Task.TURN: _turn,
  Task.INTERRUPTION: _interruption,
}


def write(
  root: pathlib.Path,
  *,
  voices: Mapping[str, list[Timeline]],
  clips: int,
  seed: int = 0,
) -> None:
  """Writes `root`/v1.0/TASK/ID for all four tasks.

  Args:
    root: a folder that is not there yet.
    voices: sentences of each voice, as prepared; `sentences` finds them. The
      clips take voices in turn.
    clips: of each task.
    seed: of all draws.

  Raises:
    errors.UserError: `root` is there, or a voice has too few sentences.
  """
  if root.exists():
    raise errors.UserError(f"--out={root} is there already: name a new folder")
  for voice, found in voices.items():
    if len(found) < SENTENCES:
      raise errors.UserError(
        f"the voice {voice} has {len(found)} held-out sentences of"
        f" {SENTENCE[0]:g} to {SENTENCE[1]:g} s, and a clip has {SENTENCES}:"
        " prepare one that says transcripts of recorded prompts (`prepare"
        " --unheard` with a --config whose data.voices do)"
      )
  part = root.with_name(f"{root.name}.part")
  shutil.rmtree(part, ignore_errors=True)  # of one that was killed
  files.make(part, what=f"--out={root}")
  names, listens = sorted(voices), {}
  for task, compose in LAYOUTS.items():
    for k in range(clips):
      voice = names[k % len(names)]
      random = np.random.default_rng([seed, zlib.crc32(task.encode()), k])
      order = random.permutation(len(voices[voice])).tolist()
      clip = _Clip()
      name, content = compose(
        clip, lambda v=voice, o=order: voices[v][o.pop()], random
      )
      folder = part / "v1.0" / task / str(k + 1)
      folder.mkdir(parents=True)
      sound_lib.write_wav(
        folder / bench.INPUT, channels=[np.concatenate(clip.parts)]
      )
      said = [
        {"text": text, "timestamp": _times((start, end))}
        for text, start, end in clip.words
      ]
      _json(folder / "transcription.json", [{"speaker": 0, "item": said}])
      if task == Task.BACKCHANNEL:
        listens[str(k + 1)] = content
      else:
        _json(folder / name, content)
  _json(part / bench.HUMAN, listens)
  about = "made by tml_jax; not the recordings of Full-Duplex-Bench"
  made = {"about": about, "voices": names, "clips": clips, "seed": seed}
  _json(part / MADE, made | {"git": workdir_lib.git_hash()})
  part.rename(root)


def _json(path: pathlib.Path, content) -> None:
  path.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")


def sentences(voice: source.Source, *, share: float) -> list[Timeline]:
  """Held-out sentences of a voice that last as long as one may."""
  found = [voice[i] for i in range(len(voice))]
  return [
    each
    for each in found
    if SENTENCE[0] <= each.duration <= SENTENCE[1]
    and splits.is_heldout(each.metadata["prompt"], share=share)
  ]


def open_voices(
  data_dir: str, *, share: float, names: Sequence[str] = ()
) -> dict[str, list[Timeline]]:
  """Sentences of unheard English voices in a folder of prepared data.

  Args:
    data_dir: the folder.
    share: of prompts that is held out.
    names: of voices; none for all.

  Raises:
    errors.UserError: a voice is none of them, or is not there.
  """
  known, result = unheard.BY_LANGUAGE["en"], {}
  for name in names or known:
    if name not in known:
      near = registry.nearest(name, names=[*known])
      raise errors.UserError(
        f"--unheard_voices={name}: no English voice that is kept; {near}"
      )
    path = pathlib.Path(data_dir) / source.parse(name).folder
    if not (path / corpus.INDEX).is_file():
      raise errors.UserError(
        f"--data_dir={data_dir} lacks the voice {name}; make it with python -m"
        f" tml_jax.prepare --unheard --data_dir={data_dir}"
      )
    result[name] = sentences(corpus.RecordSource(path), share=share)
  return result


def main(config: Config) -> None:
  out = config_flags.OUT.value
  if not out:
    raise errors.UserError("--out is missing: name the folder to write")
  data_dir = config_flags.data_dir()
  voices = open_voices(
    data_dir, share=config.data.heldout_share, names=_VOICES.value
  )
  write(pathlib.Path(out), voices=voices, clips=_CLIPS.value)
  print(f"{_CLIPS.value} clips of each of {', '.join(LAYOUTS)}: {out}")


if __name__ == "__main__":
  config_flags.run(main, default="experiments/interaction.py:interactive")
