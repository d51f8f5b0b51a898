"""Evaluation of a model on scenarios: live for timing, forced for content.

For: the numbers of `evaluate` and of the training loop. Not for: definitions
(`reply`). Start reading at `evaluate`. Live: the model hears the scenario's
user, window by window, and answers itself; the recorded agent is not played.
Forced: the model reads the recorded conversation, and its predictions of text
and sound are compared with it.
"""

import dataclasses
import functools
from collections.abc import Callable, Generator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import tqdm

from tml_jax import errors
from tml_jax.config import Config
from tml_jax.data import mixture, turns
from tml_jax.data.splits import Split
from tml_jax.evals import reply
from tml_jax.models import flow_head, interaction
from tml_jax.sampling import pool as pool_lib
from tml_jax.sampling import session, user
from tml_jax.streams import dmel, framing, packing
from tml_jax.streams import timeline as timeline_lib
from tml_jax.streams import tokenizer as tokenizer_lib
from tml_jax.streams.frame import Frame, Kind

QUICK_COUNT = 8  # conversations of an evaluation inside training
_SLOTS = 16  # conversations ticked together
_FORCED_BATCH = 4
_TEXT_KINDS = (Kind.SAY, Kind.MESSAGE)
_DB = 20.0  # a factor 10 in magnitude


@dataclasses.dataclass(frozen=True)
class Report:
  """A split evaluated.

  Attributes:
    split: whose conversations.
    scalars: by name, see `reply.summarise` and `forced`.
    scores: of each conversation.
    tick_seconds: [ticks] of `sessions` conversations at once, compilation
      included.
    sessions: as said.
  """

  split: Split
  scalars: dict[str, float]
  scores: list[reply.Score]
  tick_seconds: np.ndarray
  sessions: int


def evaluate(
  config: Config,
  *,
  model: interaction.InteractionModel,
  variables: dict[str, Any],
  data_dir: str,
  split: Split,
  count: int,
) -> Report:
  """Runs `count` scenarios of `split`.

  Raises:
    errors.UserError: the prepared data is missing or broken.
  """
  timelines = scenarios(config, data_dir=data_dir, split=split, count=count)
  tokenizer = tokenizer_lib.Tokenizer.load(
    tokenizer_lib.path(data_dir), config=config.streams
  )
  variables = jax.tree.map(jnp.asarray, variables)
  live = converse(
    config,
    model=model,
    variables=variables,
    timelines=timelines,
    tokenizer=tokenizer,
    title=f"{split}: live",
  )
  scores = [
    reply.score(sounding(frames), exchanges=timeline.metadata["exchanges"])
    for frames, timeline in zip(live.recordings, timelines, strict=True)
  ]
  content = forced(
    config,
    model=model,
    variables=variables,
    recordings=[
      framing.frames(
        turns.lay_out(t, config=config, tokenizer=tokenizer),
        config=config.streams,
        tokenizer=tokenizer,
      )
      for t in timelines
    ],
    title=f"{split}: forced",
  )
  return Report(
    split=split,
    scalars=reply.summarise(scores) | content,
    scores=scores,
    tick_seconds=live.tick_seconds,
    sessions=_SLOTS,
  )


def scenarios(
  config: Config, *, data_dir: str, split: Split, count: int
) -> list[timeline_lib.Timeline]:
  """The first `count` conversations of `split`, with what to score by.

  Raises:
    errors.UserError: the prepared data is missing or broken, or the mixture
      holds recordings in which no reply is due at a known time.
  """
  timelines = mixture.timelines(
    config, data_dir=data_dir, split=split, count=count
  )
  for timeline in timelines:
    if "exchanges" not in timeline.metadata:
      raise errors.UserError(
        f"{timeline.id} does not say when a reply is due; evaluate with "
        "scenarios alone, for instance --config.data.mixture=reply:1.0"
      )
  return timelines


def sounding(frames: list[Frame]) -> np.ndarray:
  """[windows] bool: whether the agent is audible in each window."""
  return np.array([frame.own_dmel is not None for frame in frames])


@dataclasses.dataclass(frozen=True)
class Live:
  """Conversations that were held.

  Attributes:
    recordings: frames of each.
    tick_seconds: [ticks] wall-clock time of each call, compilation included.
  """

  recordings: list[list[Frame]]
  tick_seconds: np.ndarray


@dataclasses.dataclass(frozen=True)
class Step:
  """The next frame of a conversation, for the model.

  Attributes:
    inputs: what it perceives.
    quiet: it is not asked what it says.
  """

  inputs: Frame
  quiet: bool = False


# Given the finished frame of each step; returns the frames of the recording.
Talk = Generator[Step, Frame, list[Frame]]


def duplex(part: user.UserPart, live: session.Session) -> Talk:
  """Window by window: what the user does is heard, and answered, at once."""
  frames = []
  while len(frames) < len(part):
    frames.append((yield Step(part.perceive(live))))
  return frames


def converse(
  config: Config,
  *,
  model: interaction.InteractionModel,
  variables: dict[str, Any],
  timelines: list[timeline_lib.Timeline],
  tokenizer: tokenizer_lib.Tokenizer,
  title: str,
  hold: Callable[[user.UserPart, session.Session], Talk] = duplex,
) -> Live:
  """Lets the model answer the users of `timelines`.

  Conversation i has seed i, whoever shares the pool: the next one joins when
  another is over. `hold` is how the model is connected to its user.
  """
  users = [user.UserPart(t, tokenizer=tokenizer) for t in timelines]
  pool = pool_lib.SessionPool(
    config,
    model=model,
    variables=variables,
    slots=_SLOTS,
    text_pieces=tokenizer.num_pieces,
  )
  recordings: list[list[Frame]] = [[] for _ in timelines]
  seconds: list[float] = []
  waiting = list(reversed(range(len(users))))
  talks: dict[session.Session, tuple[int, Talk]] = {}
  steps: dict[session.Session, Step] = {}
  with tqdm.tqdm(total=len(users), desc=title, unit="talk") as progress:

    def go_on(live: session.Session, frame: Frame | None) -> None:
      i, talk = talks[live]
      try:
        steps[live] = talk.send(frame)
      except StopIteration as over:
        recordings[i] = over.value
        pool.leave(live)
        del talks[live]
        progress.update()

    while waiting or talks:
      while waiting and len(talks) < _SLOTS:
        i = waiting.pop()
        live = pool.join(seed=i)
        talks[live] = i, hold(users[i], live)
        go_on(live, None)
      if not steps:
        continue  # some that joined had nothing to ask
      inputs = {live: step.inputs for live, step in steps.items()}
      quiet = {live for live, step in steps.items() if step.quiet}
      steps.clear()
      ticked = pool.tick(inputs, quiet=quiet)
      seconds.append(ticked.seconds)
      for live, frame in ticked.frames.items():
        go_on(live, frame)
  return Live(recordings, np.array(seconds))


def forced(
  config: Config,
  *,
  model: interaction.InteractionModel,
  variables: dict[str, Any],
  recordings: list[list[Frame]],
  title: str,
) -> dict[str, float]:
  """Predictions on recorded conversations, given all that came before.

  Returns:
    text_accuracy (say tokens predicted right), text_loss (nats a token),
    message_accuracy (the same of displayed text, drawing and calls),
    mel_db (RMS error of the flow head's sample in dB), mel_expected_db (of
    one step from the noise, the mel that the head expects), mel_mean_db (of
    always predicting the mean of these very targets, channel by channel).
  """
  sequences = packing.pack(recordings, config=config.streams)
  padding = -len(sequences) % _FORCED_BATCH
  sequences += [packing.empty_sequence(config.streams)] * padding
  text = np.zeros((len(_TEXT_KINDS), 3))
  misses, targets = {"mel_db": [], "mel_expected_db": []}, []
  starts = range(0, len(sequences), _FORCED_BATCH)
  for first in tqdm.tqdm(starts, desc=title, unit="batch"):
    group = sequences[first : first + _FORCED_BATCH]
    batch = {name: np.stack([s[name] for s in group]) for name in group[0]}
    key = jax.random.fold_in(jax.random.key(0), first)
    sums, mels = jax.device_get(
      _predict(variables, batch, key, model=model, config=config)
    )
    text += sums
    used = batch["speak_weights"] > 0
    targets.append(batch["speak_mel"][used])
    for name, mel in zip(misses, mels, strict=True):
      misses[name].append((mel - batch["speak_mel"])[used])
  say, message = text / np.maximum(text[:, 2:], 1)
  target = np.concatenate(targets)
  deviation = target - target.mean(axis=(0, 1))
  rms = {n: np.concatenate(e) for n, e in misses.items()}
  rms["mel_mean_db"] = deviation
  return {
    "text_accuracy": float(say[0]),
    "text_loss": float(say[1]),
    "message_accuracy": float(message[0]) if text[1, 2] else float("nan"),
    **{n: _DB * float(np.sqrt(np.square(e).mean())) for n, e in rms.items()},
  }


@functools.partial(jax.jit, static_argnames=("model", "config"))
def _predict(variables, batch, key, *, model, config: Config):
  """Sums [kinds, 3] (right, nats, count), a sample of mel, expected mel."""
  hidden, _ = model.apply(variables, batch, method=model.hidden)
  rows = interaction.take(hidden, batch["target_positions"])
  logits = model.apply(variables, rows, method=model.logits)
  picked = jnp.take_along_axis(logits, batch["targets"][..., None], -1)[..., 0]
  used = batch["target_positions"] < hidden.shape[1]
  right = picked >= logits.max(-1)
  nats = jax.nn.logsumexp(logits, -1) - picked
  sums = []
  for kind in _TEXT_KINDS:
    mask = used & (batch["target_kinds"] == kind)
    sums.append([(mask & right).sum(), jnp.where(mask, nats, 0).sum()])
    sums[-1].append(mask.sum())
  sums = jnp.array(sums, jnp.float32)
  condition = interaction.take(hidden, batch["speak_positions"])
  noise = jax.random.normal(key, batch["speak_mel"].shape)
  bound = model.bind(variables)
  mels = [
    jnp.clip(
      flow_head.sample(
        bound.velocity,
        cond_D=condition,
        null_D=bound.null_condition(),
        noise_FC=noise * temperature,
        config=flow,
      ),
      dmel.LOG_MIN,
      dmel.LOG_MAX,
    )
    for temperature, flow in (
      (config.sample.flow_temperature, config.model.flow),
      # At time 0 the noise says nothing: noise + velocity is the expectation.
      (1.0, dataclasses.replace(config.model.flow, steps=1, map_weight=0.0)),
    )
  ]
  return sums, mels
