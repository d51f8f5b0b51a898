"""Calls of two people in the layout of moshi-finetune, spoken by programs.

For: `python -m benchmarks.synthesised_calls --out=calls --count=200`, the data
of docs/data.md where nobody has recorded any. Not for: speed (`made_calls`,
which needs no synthesis) or timing that is to be learned (`data.scenarios`,
which says what is due). Start reading at `write`. Speakers are the voices of
espeak-ng, flite and festival that are installed; the recorded prompts of
Debian's asterisk-core-sounds-en answer some calls.

The agent is on the left and works at an information desk. Both leave gaps and
overlap as people do; listeners say "mm hm", callers stop to think and break in.
"""

import concurrent.futures
import dataclasses
import functools
import io
import json
import pathlib
import shutil
import string
import sys
from collections.abc import Iterator

import numpy as np
import scipy.signal
import soundfile
import tqdm
from absl import app, flags

if not __package__:
  sys.path[0] = str(pathlib.Path(__file__).parents[1])

from tml_jax import errors
from tml_jax.config import flags as config_flags
from tml_jax.data import audio, unheard, utterance
from tml_jax.data.voices import espeak, festival, flite
from tml_jax.streams import clock

RATE = 24_000
AGENT, USER = 0, 1  # channels: moshi-finetune has its own voice on the left
_NOISE_DB = -60.0  # dBFS RMS of each line
_LEVEL_DB = -23.0  # dBFS RMS of speech
_STOPS = (0.25, 0.7)  # seconds until an agent that is broken into is silent
_ESPEAK = [
  f"{language}+{variant}"
  for language in ("en-us", "en-gb", "en-gb-scotland", "en-gb-x-rp")
  for variant in (
    *(f"m{i}" for i in range(1, 8)),
    *(f"f{i}" for i in range(1, 6)),
  )
]
_FLITE = ("awb", "kal", "rms", "slt")
_FESTIVAL = ("kal_diphone", "ked_diphone")
_PROGRAMS = {"espeak": espeak, "flite": flite, "festival": festival}
# Agents: few, so that a voice can be learned; no caller has one of them.
_AGENTS = ("flite:slt", "flite:rms", "espeak:en-us+f3", "espeak:en-gb+m3")

_LISTENS = ("mm hm", "right", "okay", "I see", "yeah", "uh huh")
_FILLS = {
  "item": "parcel,ticket,card,bicycle,phone,book,key,passport".split(","),
  "day": "Monday,Tuesday,Wednesday,Thursday,Friday,Saturday".split(","),
  "hour": "eight,nine,ten,eleven,twelve,one,two,three,four,five".split(","),
  "place": "station,library,museum,airport,market,hospital".split(","),
  "count": "two,three,four,five,six,seven,twelve,twenty".split(","),
  "name": "Anna,Robert,Maria,Peter,Susan,Thomas,Julia".split(","),
}
# What a caller asks, in two parts between which one may think; the answer.
_TOPICS = (
  (
    ("I would like to know", "when the {place} opens on {day}."),
    "The {place} opens at {hour} in the morning on {day}, and it closes"
    " {count} hours later. On Sunday it is closed all day.",
  ),
  (
    ("Hi, I am calling about", "a {item} that I ordered for {name}."),
    "Let me see. The {item} for {name} was sent on {day}. It should arrive"
    " before {hour} o'clock, and somebody has to sign for it.",
  ),
  (
    ("Can you tell me please,", "how do I get to the {place}?"),
    "Take the bus number {count} to the {place}. It leaves every {count}"
    " minutes, and the ride takes about half an hour.",
  ),
  (
    ("I think I have lost", "my {item} at the {place}."),
    "I am sorry to hear that. We found a {item} at the {place} on {day}. You"
    " can come to the desk until {hour} and have a look at it.",
  ),
  (
    ("I want to book", "a table for {count} on {day}."),
    "For {count} people on {day} there is a table at {hour}. Shall I write it"
    " down for you? I need a name and a telephone number.",
  ),
  (
    ("Could you change", "my appointment from {day} to another day?"),
    "We can move it to {day} at {hour}. The doctor at the {place} will see you"
    " then. Please bring your card with you.",
  ),
  (
    ("How much is it", "to send a {item} abroad?"),
    "To send a {item} costs {count} dollars and takes {count} days. With the"
    " express service it arrives on {day}, which is a little more.",
  ),
  (
    ("Is {name} there?", "I wanted to talk about the {item}."),
    "{name} is not in the office until {day}. I can take a message about the"
    " {item}, or you can call again at {hour}.",
  ),
)
_THANKS = (
  "Okay, thank you.",
  "Great, that helps.",
  "Good, thanks a lot.",
  "Ah, all right.",
)
_HELLO = "Hello, this is the information desk. How can I help you?"
_ENDS = ("That was all, goodbye.", "Goodbye, have a nice day.")


@dataclasses.dataclass(frozen=True)
class Said:
  """One thing that was said.

  Attributes:
    channel: whose.
    start: seconds.
    sound: [n] float32 at `RATE`.
    words: texts with start and end, seconds from `start`.
  """

  channel: int
  start: float
  sound: np.ndarray
  words: list[tuple[str, float, float]]

  @property
  def end(self) -> float:
    return self.start + len(self.sound) / RATE


def write(
  folder: pathlib.Path, *, count: int, seconds: tuple[float, float]
) -> None:
  """Writes calls, the same every time with the same programs.

  Raises:
    errors.UserError: a program is missing.
  """
  callers = speakers()
  folder.mkdir(parents=True, exist_ok=True)
  make = functools.partial(
    _write_call, folder=folder, seconds=seconds, callers=callers
  )
  with concurrent.futures.ProcessPoolExecutor() as pool:
    rows = list(
      tqdm.tqdm(pool.map(make, range(count)), total=count, desc="calls")
    )
  manifest = folder / "data.jsonl"
  manifest.write_text("".join(json.dumps(row) + "\n" for row in rows))


def speakers() -> list[str]:
  """Voices that callers have, "program:voice".

  Raises:
    errors.UserError: espeak-ng or flite is missing.
  """
  for program in ("espeak-ng", "flite"):
    if shutil.which(program) is None:
      raise errors.UserError(
        f"there is no {program}: apt-get install espeak-ng flite, and festival"
        " festvox-kallpc16k festvox-kdlpc16k for more voices"
      )
  found = [f"espeak:{voice}" for voice in _ESPEAK]
  found += [f"flite:{voice}" for voice in _FLITE]
  found += [
    f"festival:{name}" for name in festival.installed() if name in _FESTIVAL
  ]
  return [v for v in found if v not in _AGENTS and v not in unheard.VOICES]


def _write_call(
  number: int,
  *,
  folder: pathlib.Path,
  seconds: tuple[float, float],
  callers: list[str],
) -> dict[str, object]:
  """One call; returns its line of the manifest."""
  random = np.random.default_rng(number)
  wanted = random.uniform(*seconds)
  voices = (
    _AGENTS[random.integers(len(_AGENTS))],
    callers[random.integers(len(callers))],
  )
  said = list(_call(random, voices, seconds=wanted))
  length = round((max(each.end for each in said) + 0.5) * RATE)
  sound = random.normal(0, 10 ** (_NOISE_DB / 20), (length, 2))
  gains = 10 ** (random.uniform(-8, 0, 2) / 20)
  words = []
  for each in said:
    first = round(each.start * RATE)
    sound[first : first + len(each.sound), each.channel] += (
      each.sound * gains[each.channel]
    )
    if each.channel == AGENT:
      words += [
        [
          text,
          [round(each.start + a, 3), round(each.start + b, 3)],
          "SPEAKER_MAIN",
        ]
        for text, a, b in each.words
      ]
  name = f"{number:04d}"
  soundfile.write(folder / f"{name}.wav", sound.clip(-1, 1), RATE)
  text = json.dumps({"alignments": words})
  (folder / f"{name}.json").write_text(text, encoding="utf-8")
  return {"path": f"{name}.wav", "duration": length / RATE}


def _call(
  random: np.random.Generator, voices: tuple[str, str], *, seconds: float
) -> Iterator[Said]:
  """What is said, not in order of time."""

  def say(channel: int, text: str, *, at: float) -> Said:
    sound, words = _spoken(voices[channel], text)
    return Said(channel, max(at, 0.0), sound, words)

  def gap(mean: float, spread: float) -> float:
    """Floor transfer offset: below 0 the next begins before the end."""
    if random.random() < 0.05:
      return float(random.uniform(2.0, 5.0))
    return float(np.clip(random.normal(mean, spread), -0.4, 1.8))

  turn = say(AGENT, _HELLO, at=random.uniform(0.3, 1.0))
  yield turn
  time = turn.end + gap(0.4, 0.35)
  while time < seconds:
    question, answer = _TOPICS[random.integers(len(_TOPICS))]
    fills = {name: str(random.choice(of)) for name, of in _FILLS.items()}
    question = tuple(part.format(**fills) for part in question)
    if random.random() < 0.3:  # stops to think
      turn = say(USER, question[0], at=time)
      yield turn
      turn = say(USER, question[1], at=turn.end + random.uniform(0.5, 1.3))
    else:
      turn = say(USER, " ".join(question), at=time)
      if random.random() < 0.2:
        yield _listening(random, turn, say=functools.partial(say, AGENT))
    yield turn
    reply = say(AGENT, answer.format(**fills), at=turn.end + gap(0.3, 0.3))
    draw = random.random()
    if draw < 0.2:  # breaks in; the agent stops
      time = reply.start + random.uniform(0.4, 0.7) * (reply.end - reply.start)
      yield _cut(reply, at=time + random.uniform(*_STOPS))
      continue
    if draw < 0.6:
      yield _listening(random, reply, say=functools.partial(say, USER))
    yield reply
    time = reply.end + gap(0.5, 0.4)
    if random.random() < 0.5:
      thanks = say(USER, str(random.choice(_THANKS)), at=time)
      yield thanks
      time = thanks.end + gap(0.8, 0.4)
  for channel, text in zip((USER, AGENT), _ENDS, strict=True):
    turn = say(channel, text, at=time)
    yield turn
    time = turn.end + gap(0.3, 0.2)


def _listening(random: np.random.Generator, turn: Said, *, say) -> Said:
  """A backchannel while somebody else speaks."""
  at = turn.start + random.uniform(0.3, 0.7) * (turn.end - turn.start)
  return say(str(random.choice(_LISTENS)), at=at)


def _cut(said: Said, *, at: float) -> Said:
  """What is left of `said` that stops at a time, with a fade of 20 ms."""
  keep = min(round((at - said.start) * RATE), len(said.sound))
  sound = said.sound[:keep].copy()
  fade = min(RATE // 50, keep)
  sound[keep - fade :] *= np.linspace(1, 0, fade, dtype=np.float32)
  words = [word for word in said.words if word[2] <= keep / RATE]
  return dataclasses.replace(said, sound=sound, words=words)


@functools.cache
def _spoken(
  voice: str, text: str
) -> tuple[np.ndarray, list[tuple[str, float, float]]]:
  """[n] at `RATE` from the first sound to the last, and words with times.

  Times are spread over the active speech: programs do not give them.
  """
  program, _, name = voice.partition(":")
  spoken = _PROGRAMS[program].speak(text, voice=name)
  sound, rate = soundfile.read(io.BytesIO(spoken), dtype="float32")
  heard = scipy.signal.resample_poly(sound, clock.SAMPLE_RATE, rate)
  spans = audio.speech_spans(heard.astype(np.float32), name=text)
  if not spans:
    raise ValueError(f"{voice} says nothing of {text!r}")
  words = [
    (
      word.text.strip(string.punctuation),
      word.start - spans[0].start,
      word.end - spans[0].start,
    )
    for word in utterance.spread_words(text, spans=spans)
  ]
  out = scipy.signal.resample_poly(sound, RATE, rate)
  out = out[round(spans[0].start * RATE) : round(spans[-1].end * RATE)]
  gain = 10 ** ((_LEVEL_DB - audio.active_level(heard, spans)) / 20)
  return (out * gain).astype(np.float32), words


def main(argv: list[str]) -> None:
  del argv
  if not config_flags.OUT.value:
    raise errors.UserError("--out is missing: name a folder for the calls")
  low, high = (float(value) for value in flags.FLAGS.seconds)
  write(
    pathlib.Path(config_flags.OUT.value),
    count=flags.FLAGS.count,
    seconds=(low, high),
  )


if __name__ == "__main__":  # else the names are those of whoever imports it
  flags.DEFINE_integer("count", 200, "Calls.", lower_bound=1)
  flags.DEFINE_list(
    "seconds",
    ["60", "150"],
    "Shortest and longest until the last question; 20 s are left for it.",
  )
  app.run(main)
