"""The scenario "reply": the user says a prompt, the agent says it back.

For: duplex timelines with two voices, exact timing and exact text, composed
from voice corpora. Not for: making the voices (`sources`). Start reading at
`ReplyScenario`.

Two or three exchanges a timeline, 8 to 20 s. In an exchange the user says one
prompt and the agent answers with its own recording of the same prompt: the
same words in another voice, or the sentence in the other voice's language.
In half of the exchanges the user first asks for a delay ("wait three", or the
recorded words "three", "seconds"), N in 1..3, and the agent shows the number
that it understood, one window later, in writing. The rule of timing:

  reply onset window = window of the user's last speech sample + 1 + delay
  delay = 1 window without an instruction, 5 N windows (N seconds) with one

so the usual latency is 2 windows: one window of silence is heard before the
agent speaks. Gain, noise and babble touch the user's track only.

Split: prompts by hash of their id (`splits`), the same for all voices. The
words of delay instructions (`DELAY_WORDS`) belong to both splits and are
never used as prompts.
"""

import dataclasses
from collections.abc import Mapping
from typing import Any

import numpy as np

from tml_jax import errors
from tml_jax.data import noise, source, splits, utterance
from tml_jax.data.scenarios import score as score_lib
from tml_jax.data.splits import Split
from tml_jax.streams import clock
from tml_jax.streams.timeline import Role, Timeline, VideoFrame

FAMILY = "reply"
DELAYS = (1, 2, 3)  # seconds that an instruction may ask for
WINDOWS_PER_SECOND = 5
PROMPT_DELAY = 1  # windows, without an instruction
DELAY_WORDS = frozenset(
  ["seconds"] + [f"{kind}/{n}" for kind in ("digits", "wait") for n in DELAYS]
)

_PROMPT_SECONDS = (0.4, 2.5)
_MAX_GAP = 0.3  # seconds of silence inside a prompt
_DURATION = (8.0, 20.0)  # seconds of a timeline
_EXCHANGES = (2, 3)
# Drawn for 0.56: plans with many delays are more often too long and drawn
# again, and half of what remains has an instruction.
_INSTRUCTION_SHARE = 0.56
_SAME_LANGUAGE_SHARE = 0.8  # where such a pair of voices exists
_GAIN_DB = (-6.0, 6.0)
_NOISE_SHARE = 0.5  # of timelines
_SNR_DB = (15.0, 35.0)
_BABBLE_VOICES = 4
_VIDEO_SHARE = 0.1
# Pauses in seconds.
_LEAD = (0.4, 1.5)
_BETWEEN_WORDS = (0.05, 0.12)
_AFTER_INSTRUCTION = (0.4, 1.0)
_BETWEEN_EXCHANGES = (0.6, 2.0)


@dataclasses.dataclass(frozen=True)
class VideoSize:
  """Pixels of the frames that some timelines carry."""

  height: int
  width: int


@dataclasses.dataclass(frozen=True)
class _Bank:
  """What one voice can say: prompt id to index in its corpus."""

  recordings: source.Source
  language: str
  prompts: dict[str, int]
  delays: dict[str, int]

  def load(self, prompt: str) -> Timeline:
    index = self.prompts.get(prompt)
    return self.recordings[self.delays[prompt] if index is None else index]

  def instruction(self, delay: int) -> list[Timeline]:
    """The recordings that ask for a delay of so many seconds."""
    spoken = [f"wait/{delay}"]
    if spoken[0] not in self.delays:
      spoken = [f"digits/{delay}", "seconds"]
    return [self.load(prompt) for prompt in spoken]


class ReplyScenario:
  """A `Source` of composed timelines.

  Item i depends on the split, the seed, i and the corpora, on nothing else.
  """

  def __init__(
    self,
    voices: Mapping[str, source.Source],
    *,
    split: Split,
    seed: int,
    heldout_share: float,
    length: int,
    video_size: VideoSize,
  ):
    """Looks through the corpora for what can be said.

    Args:
      voices: corpora by name; every timeline one utterance with metadata
        voice, language, prompt and text.
      split: whose prompts and whose random numbers.
      seed: of the family; the splits differ at every seed.
      heldout_share: of the prompt ids.
      length: how many items; they are composed when asked for.
      video_size: of the frames in one timeline of ten.

    Raises:
      errors.UserError: a voice cannot ask for delays, or no two voices share
        a prompt of this split.
    """
    self._arguments = {
      "voices": voices,
      "split": split,
      "seed": seed,
      "heldout_share": heldout_share,
      "length": length,
      "video_size": video_size,
    }
    self._banks = {
      name: _open_bank(name, recordings, split=split, share=heldout_share)
      for name, recordings in voices.items()
    }
    self._shared = _shared_prompts(self._banks, split=split)

  def __len__(self) -> int:
    return self._arguments["length"]

  def __getitem__(self, index: int) -> Timeline:
    if not 0 <= index < len(self):
      raise IndexError(f"{self!r}: item {index} of {len(self)}")
    split, seed = self._arguments["split"], self._arguments["seed"]
    random = splits.generator(
      family=FAMILY, split=split, seed=seed, index=index
    )
    user, agent = self._pair(random)
    while True:  # about four plans in five have a fitting length
      score = score_lib.Score(user_voice=user, agent_voice=agent)
      self._compose(score, random=random)
      if _DURATION[0] <= score.duration <= _DURATION[1]:
        break
    audio = score.render(score.user)
    noise_kind = self._add_noise(audio, random=random)
    return Timeline(
      id=f"{FAMILY}/{split}/{seed}/{index}",
      duration=score.duration,
      tracks=(
        score_lib.track(Role.USER, score.user, audio=audio, voice=user),
        score_lib.track(
          Role.AGENT, score.agent, audio=score.render(score.agent), voice=agent
        ),
      ),
      video=self._video(score.duration, random=random),
      events=tuple(score.events),
      metadata={
        "family": FAMILY,
        "split": str(split),
        "seed": seed,
        "index": index,
        "noise": noise_kind,
        "exchanges": score.exchanges,
      },
    )

  def __getstate__(self) -> dict[str, Any]:
    return self._arguments  # a worker looks through the corpora itself

  def __setstate__(self, state: dict[str, Any]) -> None:
    self.__init__(**state)

  def __repr__(self) -> str:  # Grain puts it in error messages
    a = self._arguments
    return f"ReplyScenario({a['split']}, seed={a['seed']})"

  def _pair(self, random: np.random.Generator) -> tuple[str, str]:
    """User and agent voice; languages differ in one timeline of five."""
    user = _choose(sorted({user for user, _ in self._shared}), random=random)
    others = sorted(agent for other, agent in self._shared if other == user)
    language = self._banks[user].language
    same = [name for name in others if self._banks[name].language == language]
    if random.random() < _SAME_LANGUAGE_SHARE and same:
      others = same
    return user, _choose(others, random=random)

  def _compose(
    self, score: score_lib.Score, *, random: np.random.Generator
  ) -> None:
    """Draws exchanges; the score keeps the time."""
    user = self._banks[score.user_voice]
    agent = self._banks[score.agent_voice]
    prompts = self._shared[score.user_voice, score.agent_voice]
    score.pause(_LEAD, random=random)
    for _ in range(random.integers(_EXCHANGES[0], _EXCHANGES[1] + 1)):
      prompt = _choose(prompts, random=random)
      gain_db = random.uniform(*_GAIN_DB)
      start = score.cursor
      instruction = bool(random.random() < _INSTRUCTION_SHARE)
      delay_windows = PROMPT_DELAY
      if instruction:
        seconds = int(random.choice(DELAYS))
        delay_windows = WINDOWS_PER_SECOND * seconds
        first, *others = user.instruction(seconds)
        score.say(first, gain_db=gain_db)
        for spoken in others:
          score.pause(_BETWEEN_WORDS, random=random)
          score.say(spoken, gain_db=gain_db)
        score.show(str(seconds))
        score.pause(_AFTER_INSTRUCTION, random=random)
      prompt_start = score.cursor
      score.say(user.load(prompt), gain_db=gain_db)
      end = score.cursor
      reply = agent.load(prompt)
      onset = score.answer(reply, delay_windows=delay_windows)
      score.exchanges.append(
        {
          "user_start": start / clock.SAMPLE_RATE,
          "prompt_start": prompt_start / clock.SAMPLE_RATE,
          "user_end": end / clock.SAMPLE_RATE,
          "onset_window": onset,
          "end_window": (score.cursor - 1) // clock.TURN_SAMPLES + 1,
          "delay_windows": delay_windows,
          "instruction": instruction,
          "user_prompt": prompt,
          "agent_prompt": prompt,
          "user_voice": score.user_voice,
          "agent_voice": score.agent_voice,
          "text": reply.metadata["text"],
        }
      )
      score.pause(_BETWEEN_EXCHANGES, random=random)

  def _add_noise(
    self, audio: np.ndarray, *, random: np.random.Generator
  ) -> str:
    """Mixes a background into `audio`; returns what it was."""
    if random.random() >= _NOISE_SHARE:
      return "none"
    kind = _choose([*map(str, noise.Colour), "babble"], random=random)
    level_db = utterance.LEVEL_DB - random.uniform(*_SNR_DB)
    if kind == "babble":
      background = self._babble(len(audio), random=random)
    else:
      offset = int(random.integers(1 << 18))
      background = noise.take(
        noise.Colour(kind), count=len(audio), offset=offset
      )
    audio += np.float32(10 ** (level_db / 20)) * background
    np.clip(audio, -1, 1, out=audio)
    return kind

  def _babble(self, count: int, *, random: np.random.Generator) -> np.ndarray:
    """[count] float32 of unit RMS: a few people of this split at once."""
    total = np.zeros(count, np.float32)
    for _ in range(_BABBLE_VOICES):
      pieces, length = [], -int(random.integers(clock.SAMPLE_RATE))
      while length < count:
        bank = self._banks[_choose(sorted(self._banks), random=random)]
        prompt = _choose(list(bank.prompts), random=random)
        pieces.append(bank.load(prompt).tracks[0].audio)
        length += len(pieces[-1])
      talk = np.concatenate(pieces)
      total += talk[len(talk) - count :]
    return total / np.sqrt(np.mean(np.square(total)))

  def _video(
    self, duration: float, *, random: np.random.Generator
  ) -> tuple[VideoFrame, ...]:
    """A square that moves, one frame a second; the reply ignores it."""
    if random.random() >= _VIDEO_SHARE:
      return ()
    size = self._arguments["video_size"]
    side = min(size.height, size.width) // 4
    start = random.uniform(0, duration - 5)
    at = random.uniform(0, 0.5, size=2)
    step = random.uniform(-0.15, 0.15, size=2)
    background, colour = random.integers(0, 256, size=(2, 3), dtype=np.uint8)
    frames = []
    for i in range(int(random.integers(2, 5))):
      image = np.empty((size.height, size.width, 3), np.uint8)
      image[:] = background
      place = np.clip(at + i * step, 0, 1)
      top = int(place[0] * (size.height - side))
      left = int(place[1] * (size.width - side))
      image[top : top + side, left : left + side] = colour
      frames.append(VideoFrame(float(start + i), image))
    return tuple(frames)


def _open_bank(
  name: str, recordings: source.Source, *, split: Split, share: float
) -> _Bank:
  """Sorts the utterances of a corpus into prompts and delay words."""
  prompts, delays, language = {}, {}, ""
  for i in range(len(recordings)):
    item = recordings[i]
    prompt, language = item.metadata["prompt"], item.metadata["language"]
    if prompt in DELAY_WORDS:
      delays[prompt] = i
    elif _fits(item) and splits.contains(split, prompt, share=share):
      prompts[prompt] = i
  can_wait = all(f"wait/{n}" in delays for n in DELAYS)
  can_count = all(f"digits/{n}" in delays for n in DELAYS)
  if not can_wait and not (can_count and "seconds" in delays):
    raise errors.UserError(
      f"voice {name} cannot ask for a delay: it needs the prompts wait/1..3, "
      "or digits/1..3 and seconds; leave it out of data.voices or prepare them"
    )
  return _Bank(recordings, language.split("-")[0], prompts, delays)


def _fits(item: Timeline) -> bool:
  """Whether an utterance is short and has no long pause."""
  spans = item.tracks[0].spans
  gaps = [b.start - a.end for a, b in zip(spans[:-1], spans[1:], strict=True)]
  short = _PROMPT_SECONDS[0] <= item.duration <= _PROMPT_SECONDS[1]
  return short and max(gaps, default=0.0) <= _MAX_GAP


def _shared_prompts(
  banks: dict[str, _Bank], *, split: Split
) -> dict[tuple[str, str], list[str]]:
  """Prompts that both voices of a pair can say; pairs without any left out."""
  shared = {
    (user, agent): sorted(
      banks[user].prompts.keys() & banks[agent].prompts.keys()
    )
    for user in banks
    for agent in banks
    if user != agent
  }
  shared = {pair: prompts for pair, prompts in shared.items() if prompts}
  if not shared:
    counts = {name: len(bank.prompts) for name, bank in banks.items()}
    raise errors.UserError(
      f"the {split} split of scenario {FAMILY!r} has no prompt that two voices "
      f"share (usable prompts: {counts}); add a voice to data.voices or change "
      "data.heldout_share"
    )
  return shared


def _choose(options: list[str], *, random: np.random.Generator) -> str:
  return options[int(random.integers(len(options)))]
