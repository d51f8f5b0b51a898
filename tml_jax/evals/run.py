"""Evaluation of a model on scenarios: live for timing, forced for content.

For: the numbers of `evaluate` and of the training loop. Not for: definitions
(`reply`). Start reading at `evaluate`. Live: the model hears the scenario's
user, window by window, and answers itself; the recorded agent is not played.
Forced: the model reads the recorded conversation, and its predictions of text
and sound are compared with it.
"""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from tml_jax.config import Config
from tml_jax.data import mixture
from tml_jax.data.splits import Split
from tml_jax.evals import reply
from tml_jax.models import flow_head
from tml_jax.models import interaction
from tml_jax.sampling import session
from tml_jax.streams import clock
from tml_jax.streams import framing
from tml_jax.streams import packing
from tml_jax.streams import timeline as timeline_lib
from tml_jax.streams import tokenizer as tokenizer_lib
from tml_jax.streams.frame import Frame, Kind
from tml_jax.training import losses

QUICK_COUNT = 8  # conversations of an evaluation inside training
_BATCH = 16  # conversations ticked together
_FORCED_BATCH = 4
_DB = 20.0  # a factor 10 in magnitude


@dataclasses.dataclass(frozen=True)
class Report:
  """Scalars by name (`reply.summarise` and `forced`), conversations."""

  split: Split
  scalars: dict[str, float]
  scores: list[reply.Score]


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
  timelines = mixture.timelines(
    config, data_dir=data_dir, split=split, count=count
  )
  variables = jax.tree.map(jnp.asarray, variables)
  conversations = converse(
    config, model=model, variables=variables, timelines=timelines
  )
  scores = [
    reply.score(sounding(frames), exchanges=timeline.metadata["exchanges"])
    for frames, timeline in zip(conversations, timelines, strict=True)
  ]
  tokenizer = tokenizer_lib.Tokenizer.load(
    tokenizer_lib.path(data_dir), config=config.streams
  )
  content = forced(
    config,
    model=model,
    variables=variables,
    recordings=[
      framing.frames(t, config=config.streams, tokenizer=tokenizer)
      for t in timelines
    ],
  )
  return Report(split, reply.summarise(scores) | content, scores)


def sounding(frames: list[Frame]) -> np.ndarray:
  """[windows] bool: whether the agent is audible in each window."""
  return np.array([frame.own_dmel is not None for frame in frames])


def converse(
  config: Config,
  *,
  model: interaction.InteractionModel,
  variables: dict[str, Any],
  timelines: list[timeline_lib.Timeline],
) -> list[list[Frame]]:
  """Lets the model answer the users of `timelines`; its frames."""
  results = []
  for first in range(0, len(timelines), _BATCH):
    group = timelines[first : first + _BATCH]
    conversations = [
      session.Conversation(config, seed=first + i) for i in range(len(group))
    ]
    # Always _BATCH rows, so that the last group needs no second compilation.
    rest = [session.Conversation(config, seed=0)] * (_BATCH - len(group))
    pool = session.Pool(
      config,
      model=model,
      variables=variables,
      conversations=conversations + rest,
      capacity=config.streams.seq_len,
    )
    microphones = [microphone(timeline) for timeline in group]
    images = [images_by_window(timeline) for timeline in group]
    for k in range(max(map(len, microphones))):
      inputs = [
        conversation.perceive(windows[k], images=video.get(k, []))
        if k < len(windows)
        else None
        for conversation, windows, video in zip(
          conversations, microphones, images, strict=True
        )
      ]
      pool.step(inputs + [None] * len(rest))
    results += [conversation.frames for conversation in conversations]
  return results


def microphone(timeline: timeline_lib.Timeline) -> np.ndarray:
  """[windows, 3200] float32: everything but the agent's own track."""
  count = clock.num_windows(timeline.duration)
  audio = np.zeros(count * clock.TURN_SAMPLES, np.float32)
  for track in timeline.tracks:
    if track.role != timeline_lib.Role.AGENT:
      audio[: len(track.audio)] += track.audio
  return audio.reshape(count, clock.TURN_SAMPLES)


def images_by_window(
  timeline: timeline_lib.Timeline,
) -> dict[int, list[np.ndarray]]:
  """Video frames of each window that has any."""
  result: dict[int, list[np.ndarray]] = {}
  for image in timeline.video:
    result.setdefault(clock.window_of(image.time), []).append(image.image)
  return result


def forced(
  config: Config,
  *,
  model: interaction.InteractionModel,
  variables: dict[str, Any],
  recordings: list[list[Frame]],
) -> dict[str, float]:
  """Predictions on recorded conversations, given all that came before.

  Returns:
    text_accuracy (say tokens predicted right), text_loss (nats a token),
    mel_db (RMS error of the flow head's sample in dB), mel_mode_db (the same
    from zero noise, the head's single best guess), mel_mean_db (of always
    predicting the mean of these very targets, channel by channel).
  """
  sequences = packing.pack(recordings, config=config.streams)
  padding = -len(sequences) % _FORCED_BATCH
  sequences += [packing.empty_sequence(config.streams)] * padding

  @jax.jit
  def predict(batch, key):
    return _predict(variables, batch, key, model=model, config=config)

  text = np.zeros(3)
  errors, targets = {"mel_db": [], "mel_mode_db": []}, []
  for first in range(0, len(sequences), _FORCED_BATCH):
    group = sequences[first : first + _FORCED_BATCH]
    batch = {name: np.stack([s[name] for s in group]) for name in group[0]}
    key = jax.random.fold_in(jax.random.key(0), first)
    sums, mels = jax.device_get(predict(batch, key))
    text += sums
    used = batch["speak_weights"] > 0
    targets.append(batch["speak_mel"][used])
    for name, mel in zip(errors, mels, strict=True):
      errors[name].append((mel - batch["speak_mel"])[used])
  correct, entropy, count = text
  target = np.concatenate(targets)
  deviation = target - target.mean(axis=(0, 1))
  rms = {n: np.concatenate(e) for n, e in errors.items()}
  rms["mel_mean_db"] = deviation
  return {
    "text_accuracy": correct / max(count, 1.0),
    "text_loss": entropy / max(count, 1.0),
    **{n: _DB * float(np.sqrt(np.square(e).mean())) for n, e in rms.items()},
  }


def _predict(variables, batch, key, *, model, config: Config):
  """Text sums [3] (right, nats, count) and the mel of two kinds of noise."""
  hidden, _ = model.apply(variables, batch, method=model.hidden)
  rows = losses.take(hidden, batch["target_positions"])
  logits = model.apply(variables, rows, method=model.logits)
  picked = jnp.take_along_axis(logits, batch["targets"][..., None], -1)[..., 0]
  say = (batch["target_kinds"] == Kind.SAY) & (
    batch["target_positions"] < hidden.shape[1]
  )
  sums = jnp.stack(
    [
      jnp.where(say, picked >= logits.max(-1), 0).sum(),
      jnp.where(say, jax.nn.logsumexp(logits, -1) - picked, 0).sum(),
      say.sum(),
    ]
  )
  condition = losses.take(hidden, batch["speak_positions"])
  noise = jax.random.normal(key, batch["speak_mel"].shape)
  bound = model.bind(variables)
  mels = [
    flow_head.sample(
      bound.velocity,
      cond_D=condition,
      null_D=bound.null_condition(),
      noise_FC=noise * temperature,
      config=config.model.flow,
    )
    for temperature in (config.sample.flow_temperature, 0.0)
  ]
  return sums, mels
