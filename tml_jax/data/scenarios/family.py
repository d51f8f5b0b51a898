"""What every scenario family shares: voices, split, noise, video, plumbing.

For: families of conversations between two voices of prepared corpora. Not for:
what is said in them (a file each) or when (`score`). Start
reading at `Family`.

Split: prompts by hash of their id (`splits`), the same for all voices. A
family's own words (`Family.words`), which its user asks with, belong to all
splits and are never used as its prompts.
"""

import abc
import copy
import dataclasses
import functools
import inspect
import re
from collections.abc import Callable, Mapping, Sequence
from typing import TypedDict

import numpy as np
from absl import logging

from tml_jax import errors, registry
from tml_jax.data import noise, scenarios, source, splits, utterance
from tml_jax.data.scenarios import bank as bank_lib
from tml_jax.data.scenarios import catalogue, video
from tml_jax.data.scenarios import score as score_lib
from tml_jax.data.scenarios import shift as shift_lib
from tml_jax.data.splits import Split
from tml_jax.streams import annotation, clock
from tml_jax.streams.timeline import Role, Timeline, VideoFrame

_NOISE_SHARE = 0.5  # of timelines
_SNR_DB = (15.0, 35.0)
_SAME_LANGUAGE_SHARE = 0.8  # where such a pair of voices exists


@dataclasses.dataclass(frozen=True)
class VideoSize:
  """Pixels of the frames that some timelines carry."""

  height: int
  width: int


class _Arguments(TypedDict):
  """Of `Family`, which says what they are."""

  voices: Mapping[str, source.Source]
  split: Split
  seed: int
  heldout_share: float
  dev_share: float
  length: int
  video_size: VideoSize
  grid: clock.Grid
  shift: shift_lib.Shift | None


@dataclasses.dataclass(frozen=True)
class _Drawn:
  """An item as it is in training.

  Attributes:
    score: what is said when.
    user: name of the user's voice.
    agent: name of the agent's.
    before: random numbers as they were before it was composed.
    after: and as they are afterwards.
  """

  score: score_lib.Score
  user: str
  agent: str
  before: np.random.Generator
  after: np.random.Generator


class Family(abc.ABC):
  """A `Source` of composed timelines.

  Item i depends on the split, the seed, i, the grid, the corpora and the shift
  alone.

  A subclass with a `name` is known to all commands by it.

  Attributes:
    name: of the family, in config.data.mixture.
    words: prompt ids that it uses in every split, and never as prompts.
    duration: shortest and longest timeline in seconds; other plans are drawn
      again.
    prompt_seconds: shortest and longest prompt.
    max_gap: seconds of silence inside a prompt.
    video_share: of timelines have a video that means nothing.
  """

  name: str
  words: frozenset[str]
  duration: tuple[float, float] = (8.0, 20.0)
  prompt_seconds: tuple[float, float] = (0.4, 2.5)
  max_gap: float = 0.3
  video_share: float = 0.1

  def __init_subclass__(cls, **arguments: object) -> None:
    super().__init_subclass__(**arguments)
    if "name" in vars(cls):
      if cls.name == scenarios.ALL:
        raise errors.UserError(
          f"{registry.file_of(cls.__module__)}: {cls.name!r} means every family"
          " in data.mixture; give this one another name"
        )
      scenarios.FAMILIES.add(cls.name, thing=cls, module=cls.__module__)

  @classmethod
  def described(cls) -> tuple[str, list[str]]:
    """Title and paragraphs of the rule, from the documentation of its file.

    Without the paragraph that says what the file is for.
    """
    module = inspect.getmodule(cls)
    title, *paragraphs = (inspect.getdoc(module) or cls.name).split("\n\n")
    title = re.sub(r'^The scenario "\w+": ', "", title)
    return title, [p for p in paragraphs if not p.startswith("For: ")]

  def __init__(
    self,
    voices: Mapping[str, source.Source],
    *,
    split: Split,
    seed: int,
    heldout_share: float,
    length: int,
    video_size: VideoSize,
    grid: clock.Grid = clock.TICKS,
    dev_share: float = 0.0,
    shift: shift_lib.Shift | None = None,
  ):
    """Looks through the corpora for what can be said.

    Args:
      voices: corpora by name; every timeline one utterance with metadata
        language, prompt and text.
      split: whose prompts and whose random numbers.
      seed: of the family; the splits differ at every seed.
      heldout_share: of the prompt ids.
      length: how many items; they are composed when asked for.
      video_size: of the frames in one timeline of ten.
      grid: of the agent, which acts at its boundaries.
      dev_share: of the prompt ids.
      shift: how users differ from those of training, if they do: the same
        items, ids and sentences.

    Raises:
      errors.UserError: no two voices have the family's words and share a
        prompt of this split.
    """
    self._arguments = _Arguments(
      voices=voices,
      split=split,
      seed=seed,
      heldout_share=heldout_share,
      dev_share=dev_share,
      length=length,
      video_size=video_size,
      grid=grid,
      shift=shift,
    )
    self._banks = self._open_banks(voices)
    self._shared = self._shared_prompts()

  @abc.abstractmethod
  def _compose(
    self, score: score_lib.Score, *, random: np.random.Generator
  ) -> None:
    """Draws what is said; `score` keeps the time."""

  @abc.abstractmethod
  def _check_bank(self, name: str, bank: bank_lib.Bank) -> None:
    """Refuses a voice that lacks the family's words."""

  def _known(self, prompts: list[str]) -> list[str]:
    """Those of the family's words that no split holds out.

    So training on this family leaves a word unheard that another family
    tests with.
    """
    share = self._arguments["heldout_share"]
    return [p for p in prompts if not splits.is_heldout(p, share=share)]

  def _may_use(self, identifier: str, split: Split) -> bool:
    """Whether a split may use a prompt or a question."""
    share, dev = self._arguments["heldout_share"], self._arguments["dev_share"]
    return splits.contains(split, identifier, share=share, dev=dev)

  def _is_ours(self, identifier: str) -> bool:
    """Whether a question, made of known words, belongs to this split."""
    return self._may_use(f"{self.name}/{identifier}", self._arguments["split"])

  def __len__(self) -> int:
    return self._arguments["length"]

  def __getitem__(self, index: int) -> Timeline:
    if not 0 <= index < len(self):
      raise IndexError(f"{self!r}: item {index} of {len(self)}")
    split, seed = self._arguments["split"], self._arguments["seed"]
    identifier = f"{self.name}/{split}/{seed}/{index}"
    drawn = self._draw(index)
    score, user, random = drawn.score, drawn.user, drawn.after
    shift = self._arguments["shift"]
    if shift is not None:
      score, user = self._again(drawn, shift=shift, item=identifier)
      random = copy.deepcopy(random)  # noise of another length draws otherwise
    audio = score.render(score.user)
    noise_kind = self._add_noise(audio, random=random)
    if shift is not None:
      plain = drawn.score.render(drawn.score.user)
      self._add_noise(plain, random=drawn.after)
    meaningless = tuple(
      frame
      for frame in self._video(drawn.score.duration, random=drawn.after)
      if frame.time < score.duration
    )
    return Timeline(
      id=identifier,
      duration=score.duration,
      tracks=(
        score_lib.track(Role.USER, score.user, audio=audio, voice=user),
        score_lib.track(
          Role.AGENT,
          score.agent,
          audio=score.render(score.agent),
          voice=drawn.agent,
        ),
        *score.surroundings(),
      ),
      video=tuple(score.video) or meaningless,
      events=tuple(score.events),
      metadata={
        "family": self.name,
        "noise": noise_kind,
        "asked": score.asked,
        annotation.KEY: [annotation.to_json(a) for a in score.annotations],
      },
    )

  def _draw(self, index: int) -> _Drawn:
    """Item `index`, of a fitting length, without noise."""
    random = splits.generator(
      family=self.name,
      split=self._arguments["split"],
      seed=self._arguments["seed"],
      index=index,
    )
    user, agent = self._pair(random)
    while True:  # most plans have a fitting length
      # Only who composes again needs the numbers twice.
      before = copy.deepcopy(random) if self._arguments["shift"] else random
      score = score_lib.Score(
        user_voice=user, agent_voice=agent, grid=self._arguments["grid"]
      )
      self._compose(score, random=random)
      if self.duration[0] <= score.duration <= self.duration[1]:
        return _Drawn(score, user, agent, before, random)

  def _again(
    self, drawn: _Drawn, *, shift: shift_lib.Shift, item: str
  ) -> tuple[score_lib.Score, str]:
    """The same item with another user, of any length; and the user's voice."""
    voice, bank = shift.speaker(
      self._banks[drawn.user], name=drawn.user, item=item
    )
    other = copy.copy(self)  # threads share this one
    other._banks = {**self._banks, drawn.user: bank}
    score = score_lib.Score(
      user_voice=drawn.user,
      agent_voice=drawn.agent,
      grid=self._arguments["grid"],
      waits=shift.waits,
    )
    other._compose(score, random=drawn.before)
    return score, voice

  def __reduce__(self) -> tuple[Callable[[], "Family"], tuple[()]]:
    # A worker looks through the corpora itself.
    return functools.partial(type(self), **self._arguments), ()

  def __repr__(self) -> str:  # Grain puts it in error messages
    a = self._arguments
    return f"{type(self).__name__}({a['split']}, seed={a['seed']})"

  def _pair(self, random: np.random.Generator) -> tuple[str, str]:
    """User and agent voice; languages differ in one timeline of five."""
    user = choose(sorted({user for user, _ in self._shared}), random=random)
    others = sorted(agent for other, agent in self._shared if other == user)
    language = self._banks[user].language
    same = [name for name in others if self._banks[name].language == language]
    if random.random() < _SAME_LANGUAGE_SHARE and same:
      others = same
    return user, choose(others, random=random)

  def _add_noise(
    self, audio: np.ndarray, *, random: np.random.Generator
  ) -> str:
    """Mixes a background into `audio`; returns what it was."""
    if random.random() >= _NOISE_SHARE:
      return "none"
    kind = choose([*map(str, noise.Colour), "babble"], random=random)
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

    def utterance() -> np.ndarray:
      bank = self._banks[choose(sorted(self._banks), random=random)]
      prompt = choose(list(bank.prompts), random=random)
      return bank.load(prompt).tracks[0].audio

    return noise.babble(count, utterance=utterance, random=random)

  def _video(
    self, duration: float, *, random: np.random.Generator
  ) -> tuple[VideoFrame, ...]:
    """A square that moves, one frame a second; the reply ignores it."""
    if random.random() >= self.video_share:
      return ()
    size = self._arguments["video_size"]
    side = min(size.height, size.width) // 4
    start = random.uniform(0, duration - 5)
    at = random.uniform(0, 0.5, size=2)
    step = random.uniform(-0.15, 0.15, size=2)
    background, colour = random.integers(0, 256, size=(2, 3), dtype=np.uint8)
    frames = []
    for i in range(int(random.integers(2, 5))):
      image = video.paint(
        (size.height, size.width),
        ground=background,
        colour=colour,
        side=side,
        at=np.clip(at + i * step, 0, 1),
      )
      frames.append(VideoFrame(float(start + i), image))
    return tuple(frames)

  def _open_banks(
    self, voices: Mapping[str, source.Source]
  ) -> dict[str, bank_lib.Bank]:
    """Of the voices that can take part; a warning names the others.

    Raises:
      errors.UserError: too few can; says what they lack.
    """
    banks, left = {}, []
    for name, recordings in voices.items():
      bank = self._open_bank(name, recordings)
      try:
        self._check_bank(name, bank)
        banks[name] = bank
      except errors.UserError as error:
        left.append(error)
    if left and len(banks) < 2:
      raise left[0]
    for reason in left:
      logging.warning("left out of scenario %r: %s", self.name, reason)
    return banks

  def _open_bank(self, name: str, recordings: source.Source) -> bank_lib.Bank:
    """Sorts the utterances of a corpus into prompts and the family's words."""
    split = self._arguments["split"]
    prompts, words, language = {}, {}, ""
    # What a user asks with is heard in training, so no choice is made on it.
    heard = _words() if split == Split.DEV else frozenset()
    for i, entry in enumerate(catalogue.of(recordings)):
      prompt, language = entry.prompt, entry.language
      if prompt in self.words:
        words[prompt] = i
      elif (
        self._fits(entry)
        and self._may_use(prompt, split)
        and prompt not in heard
      ):
        prompts[prompt] = i
    return bank_lib.Bank(recordings, language.split("-")[0], prompts, words)

  def _fits(self, entry: catalogue.Entry) -> bool:
    """Whether an utterance is short and has no long pause."""
    shortest, longest = self.prompt_seconds
    return shortest <= entry.seconds <= longest and entry.gap <= self.max_gap

  def _shared_prompts(self) -> dict[tuple[str, str], list[str]]:
    """What both voices of a pair can say; pairs without are left out."""
    banks = self._banks
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
        f"the {self._arguments['split']} split of scenario {self.name!r} has no"
        f" prompt that two voices share (usable prompts: {counts}); add a voice"
        " to data.voices or change data.heldout_share"
      )
    return shared


def _words() -> frozenset[str]:
  """The own words of all families together."""
  families = (scenarios.FAMILIES[name] for name in scenarios.FAMILIES)
  return frozenset().union(*(found.words for found in families))


def choose(options: Sequence[str], *, random: np.random.Generator) -> str:
  return options[int(random.integers(len(options)))]
