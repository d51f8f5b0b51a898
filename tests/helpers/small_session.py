"""A model for tests of sessions: small, random, with everything in it."""

import functools

import jax
import numpy as np
from flax import linen as nn

from tests.helpers import small
from tml_jax.config import Config
from tml_jax.live import pool as pool_lib
from tml_jax.live import program as program_lib
from tml_jax.live import session
from tml_jax.models import interaction
from tml_jax.models.execution import Execution
from tml_jax.streams import batch as batch_lib
from tml_jax.streams import clock, packing
from tml_jax.streams.batch import Batch
from tml_jax.streams.frame import Control, Frame

TEXT_ROWS = small.TEXT_ROWS


# Long sequences, little text and two pictures side by side; a short window.
_FIELDS = {
  "streams.max_text_in": 5,
  "streams.max_text_out": 4,
  "streams.video_width": 80,
  "streams.seq_len": 1024,
  "streams.max_audio": 512,
  "streams.max_patches": 64,
  "streams.max_targets": 512,
  "model.sliding_window": 16,
  "model.flow.steps": 2,
}


def config(**sample) -> Config:
  """Two layers, one sliding and one global, both MoE; `sample` fields."""
  fields = {f"sample.{name}": value for name, value in sample.items()}
  return small.config(_FIELDS | fields)


def model(cfg: Config) -> interaction.InteractionModel:
  return interaction.InteractionModel(
    cfg.model, Execution.of(cfg).on_one_device()
  )


@functools.cache
def variables(cfg: Config):
  """Random in every leaf: what starts at zero would hide mistakes."""
  empty = packing.empty_sequence(cfg.streams)
  packed = batch_lib.stack([empty], like=empty).packed
  initial = jax.jit(model(cfg).init)(jax.random.key(0), packed)
  leaves, tree = jax.tree.flatten(nn.unbox(initial))
  random = np.random.default_rng(0)
  return jax.tree.unflatten(
    tree,
    [x + 0.2 * random.normal(size=x.shape).astype(x.dtype) for x in leaves],
  )


@functools.partial(jax.jit, static_argnames="cfg")
def _logits(variables, hidden_D, *, cfg):
  net = model(cfg)
  return net.apply(variables, hidden_D, method=net.logits)


def logits(cfg: Config, hidden_D) -> np.ndarray:
  """[..., V] of hidden states."""
  return np.asarray(_logits(variables(cfg), hidden_D, cfg=cfg))


@functools.partial(jax.jit, static_argnames="cfg")
def _hidden(variables, packed, *, cfg):
  net = model(cfg)
  return net.apply(variables, packed, method=net.hidden)[0]


def hidden(cfg: Config, sequence: Batch) -> np.ndarray:
  """[T + 1, D] of one packed sequence; the last row stands for "unused"."""
  packed = batch_lib.stack([sequence], like=sequence).packed
  states = np.asarray(_hidden(variables(cfg), packed, cfg=cfg)[0])
  return np.concatenate([states, states[-1:]])


def program(cfg: Config, *, slots: int) -> program_lib.Program:
  return program_lib.on_device(
    cfg, model=model(cfg), sessions=slots, text_pieces=Letters.num_pieces
  )


def pool(cfg: Config, *, slots: int, **more) -> pool_lib.SessionPool:
  """A pool of random weights; `more` of its arguments."""
  return pool_lib.SessionPool(
    program(cfg, slots=slots), **({"variables": variables(cfg)} | more)
  )


class User:
  """Somebody at the other end: sound, now and then a picture or a line."""

  def __init__(self, cfg: Config, *, seed: int):
    self._random = np.random.default_rng(seed)
    self._samples = clock.of(cfg.streams).samples
    self._shape = (cfg.streams.video_height, cfg.streams.video_width, 3)

  def speak_to(self, live: session.Session) -> Frame:
    random = self._random
    if random.random() < 0.15:
      channel = [Control.USER_TEXT, Control.RESULT][random.integers(2)]
      length = int(random.integers(0, 9))
      live.type(channel, random.integers(TEXT_ROWS, size=length))
    images = []
    if random.random() < 0.2:
      images = list(
        random.integers(256, size=(2, *self._shape), dtype=np.uint8)
      )
    loudness = 10 ** random.uniform(-4, -1)
    samples = loudness * random.normal(size=self._samples).astype(np.float32)
    return live.perceive(samples.astype(np.float32), images=images)


class Letters:
  """A tokenizer of one token a letter; the last four rows have no piece."""

  _PIECES = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ .,!?-'\n"
  num_pieces = len(_PIECES)

  def encode(self, text: str) -> list[int]:
    return [self._PIECES.index(letter) for letter in text]

  def decode(self, ids: list[int]) -> str:
    return "".join(self._PIECES[i] for i in ids)  # IndexError as in the real
