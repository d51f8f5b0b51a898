"""Which computations give the same bits: `python -m benchmarks.alignment`.

Logits of one session's output tokens from ticks, from a prefill and from the
training forward, in pools, batches and packings of several sizes, with default
and with invariant numerics. Prints the table, writes benchmarks/alignment.md
beside this file and, with --json=FILE, the numbers. Start at `pairs`.
"""

import os

if __name__ == "__main__":  # before jax starts
  os.environ["XLA_FLAGS"] = "--xla_force_host_platform_device_count=8"

import dataclasses
import functools
import json
import pathlib
import sys

if not __package__:  # run as a file
  sys.path[0] = str(pathlib.Path(__file__).parents[1])

import jax
import numpy as np
from absl import app, flags

from tml_jax.config import Config, Numerics
from tml_jax.live import pool as pool_lib
from tml_jax.live import program as program_lib
from tml_jax.models import cache as cache_lib
from tml_jax.models import norm
from tml_jax.streams import batch as batch_lib
from tml_jax.streams import clock, packing
from tml_jax.streams.batch import Batch, Chunk, Inputs
from tml_jax.streams.frame import Control, Frame
from tml_jax.training import state as state_lib

_PREFILL = 128  # positions of a chunk
_TEXT_PIECES = 40


@dataclasses.dataclass(frozen=True)
class Pair:
  """Two ways to the same logits; `equal` is the share of equal elements."""

  name: str
  equal: float
  difference: float

  @classmethod
  def of(cls, name: str, first: np.ndarray, second: np.ndarray) -> "Pair":
    assert first.shape == second.shape, name
    return cls(
      name,
      float((first == second).mean()),
      float(np.abs(first - second).max()),
    )


@dataclasses.dataclass(frozen=True)
class Model:
  """A model with its weights."""

  config: Config
  variables: dict

  @functools.cached_property
  def module(self):
    return state_lib.create_sampler(self.config)

  def compile(self, function):
    options = self.config.numerics.compiler_options
    return jax.jit(function, compiler_options=options)

  @functools.cached_property
  def _logits(self):
    return self.compile(
      lambda v, rows: self.module.apply(v, rows, method="logits")
    )

  def logits(self, hidden_ND) -> np.ndarray:
    """[N, V], always by products of the same shape."""
    hidden = np.asarray(hidden_ND)
    count = len(hidden)
    hidden = np.pad(hidden, ((0, -count % norm.ROWS), (0, 0)))
    parts = [
      np.asarray(self._logits(self.variables, hidden[i : i + norm.ROWS]))
      for i in range(0, len(hidden), norm.ROWS)
    ]
    return np.concatenate(parts)[:count]

  @functools.cached_property
  def _hidden(self):
    return self.compile(
      lambda v, packed: self.module.apply(v, packed, method="hidden")[0]
    )

  def forward(self, sequences, *, sharding=None) -> np.ndarray:
    """Hidden states [B, T, D] of packed sequences as one batch."""
    packed = batch_lib.stack(sequences, like=sequences[0]).packed
    if sharding is not None:
      packed = jax.device_put(packed, sharding)
    return np.asarray(self._hidden(self.variables, packed))


def _user(config: Config, live, *, random) -> Frame:
  """Sound, now and then a line of text."""
  if random.random() < 0.1:
    live.type(Control.USER_TEXT, random.integers(_TEXT_PIECES, size=5))
  samples = 0.1 * random.standard_normal(clock.TICKS.samples)
  return live.perceive(samples.astype(np.float32))


def talk(model: Model, *, slots: int, slot: int, windows: int):
  """A session among busy neighbours: its frames and states [N, D]."""
  program = program_lib.on_device(
    model.config,
    model=model.module,
    sessions=slots,
    text_pieces=_TEXT_PIECES,
  )
  pool = pool_lib.SessionPool(program, variables=model.variables)
  for seed in range(slots):
    pool.join(seed=5 if seed == slot else 100 + seed)
  live = pool.sessions[slot]
  randoms = {
    s: np.random.default_rng(0 if s is live else 10 + i)
    for i, s in enumerate(pool.sessions)
  }
  frames, states = [], []
  for _ in range(windows):
    ticked = pool.tick(
      {s: _user(model.config, s, random=r) for s, r in randoms.items()}
    )
    frames.append(ticked.frames[live])
    states.append(np.asarray(ticked.hidden[slot, : ticked.counts[slot]]))
  return frames, np.concatenate(states)


def _pack(model: Model, recordings) -> Batch:
  sequences = packing.pack(recordings, config=model.config.streams)
  assert len(sequences) == 1, "the recordings do not fit one sequence"
  return sequences[0]


def _at_targets(sequence, hidden_TD, *, segment: int) -> np.ndarray:
  """States that predict the output tokens of one segment."""
  segment_ids = sequence.packed.segment_ids
  positions = sequence.targets.positions
  positions = positions[positions < len(segment_ids)]
  return hidden_TD[positions[segment_ids[positions] == segment]]


def _part(inputs: Inputs, *, start: int, count: int) -> Inputs:
  """Positions [start, start + count) as a row of a chunk of _PREFILL."""

  def cut(values):
    return np.pad(values[start : start + count], (0, _PREFILL - count))

  def move(positions):
    moved = positions - start
    return np.where((moved >= 0) & (moved < count), moved, _PREFILL)

  part = inputs._replace(
    tokens=cut(inputs.tokens),
    windows=cut(inputs.windows),
    audio_positions=move(inputs.audio_positions),
    patch_positions=move(inputs.patch_positions),
  )
  return jax.tree.map(lambda x: x[None], part)


def _prefill(model: Model, sequence) -> np.ndarray:
  """States [T, D] of one session by chunks of _PREFILL positions."""
  length = int((sequence.packed.segment_ids == 1).sum())
  cache = cache_lib.init_cache(
    model.config.model,
    batch_size=1,
    horizon=model.config.sample.horizon,
    sinks=model.config.sample.sinks,
    chunk=_PREFILL,
    dtype=str(model.config.train.dtype),
  )
  extend = model.compile(
    lambda v, chunk, cache: model.module.apply(v, chunk, cache, method="extend")
  )
  states = []
  for start in range(0, length, _PREFILL):
    count = min(_PREFILL, length - start)
    inputs = _part(sequence.packed.inputs, start=start, count=count)
    chunk = Chunk(inputs, np.array([count], np.int32))
    hidden, cache = extend(model.variables, chunk, cache)
    states.append(np.asarray(hidden[0, :count]))
  return np.concatenate(states)


def pairs(
  model: Model, *, windows: int, evicting: int, crowds=((4, 2), (16, 9))
) -> list[Pair]:
  """All of them.

  Args:
    model: with more than one weight that is not zero in every leaf.
    windows: of a session that is compared with training; two of them fit a
      sequence.
    evicting: windows after which global layers have evicted.
    crowds: pools that the session is held in besides one of its own, and its
      slots there.
  """
  logits = model.logits
  frames, ticked = talk(model, slots=1, slot=0, windows=windows)
  others, _ = talk(model, slots=4, slot=1, windows=windows // 2)
  by_tick = logits(ticked)
  sequence = _pack(model, [frames])
  packed = _pack(model, [frames, others])
  behind = _pack(model, [others, frames])
  alone = model.forward([sequence])[0]
  of_alone = logits(_at_targets(sequence, alone, segment=1))
  result = []

  def add(name, first, second):
    result.append(Pair.of(name, first, second))
    print(result[-1], flush=True)

  add("tick, training", by_tick, of_alone)
  prefill = _prefill(model, sequence)
  add(
    "tick, prefill by 128",
    by_tick,
    logits(_at_targets(sequence, prefill, segment=1)),
  )
  for slots, slot in crowds:
    _, crowded = talk(model, slots=slots, slot=slot, windows=windows)
    add(f"pool of 1, slot {slot} of {slots}", by_tick, logits(crowded))
  _, two = talk(model, slots=4, slot=0, windows=evicting)
  for name, slots, slot in (("slot 3 of 4", 4, 3), ("pool of 1", 1, 0)):
    _, other = talk(model, slots=slots, slot=slot, windows=evicting)
    add(f"after eviction: slot 0 of 4, {name}", logits(two), logits(other))
  for name, sequences, row, segment in (
    ("batch of 1, of 4", [packed, behind, packed, sequence], 3, 1),
    ("alone, first of a packing", [packed], 0, 1),
    ("alone, behind another", [behind], 0, 2),
  ):
    hidden = model.forward(sequences)[row]
    rows = _at_targets(sequences[row], hidden, segment=segment)
    add(f"training: {name}", of_alone, logits(rows))
  mesh = jax.sharding.Mesh(np.array(jax.devices()[:8]), ("data",))
  sharding = jax.sharding.NamedSharding(
    mesh, jax.sharding.PartitionSpec("data")
  )
  eight = model.forward([packed] * 7 + [sequence], sharding=sharding)
  rows = _at_targets(sequence, eight[-1], segment=1)
  add("training: batch of 1, of 8 on 8 devices", of_alone, logits(rows))
  return result


def disturbed(variables):
  """No leaf stays at zero, which would hide what it multiplies."""
  rng = np.random.default_rng(0)
  return jax.tree.map(
    lambda x: x + 0.05 * rng.standard_normal(x.shape).astype(np.float32),
    variables,
  )


def main(argv):
  if len(argv) > 1:
    raise app.UsageError(f"unknown argument {argv[1]!r}; flags only")
  from benchmarks import session, timing

  columns = {}
  for numerics in Numerics:
    cfg = session.config()
    cfg = dataclasses.replace(
      cfg,
      numerics=numerics,
      # Two sessions fit one sequence.
      streams=dataclasses.replace(
        cfg.streams, seq_len=1024, max_targets=512, max_speak=96
      ),
      sample=dataclasses.replace(cfg.sample, horizon=512, sinks=64),
    )
    model = Model(cfg, disturbed(session.variables(cfg)))
    columns[str(numerics)] = pairs(model, windows=24, evicting=90)
  lines = [
    "# Same bits",
    "",
    timing.made(),
    "",
    "`python -m benchmarks.alignment`: logits of a session's output tokens,"
    " size `tiny`, float32, random weights. Share of equal elements and largest"
    " difference; a logit has a spread of about 1.",
    "",
    "| pair | default | | invariant | |",
    "|---|---:|---:|---:|---:|",
  ]
  for default, invariant in zip(*columns.values(), strict=True):
    cells = " | ".join(
      f"{pair.equal:.2%} | {pair.difference:.1e}"
      for pair in (default, invariant)
    )
    lines.append(f"| {default.name} | {cells} |")
  lines += [
    "",
    "Invariant numerics leave one pair unequal: attention meets keys in blocks"
    " that are cut at multiples of 128 positions of a training row, so a"
    " recording behind another one in its row adds up in another order than the"
    " same recording at the row's start, where a session has it.",
  ]
  text = "\n".join(lines) + "\n"
  pathlib.Path(__file__).with_suffix(".md").write_text(text)
  print(text)
  if _JSON.value:
    rows = {
      name: [dataclasses.asdict(pair) for pair in column]
      for name, column in columns.items()
    }
    pathlib.Path(_JSON.value).write_text(json.dumps(rows, indent=1) + "\n")


if __name__ == "__main__":
  _JSON = flags.DEFINE_string("json", "", "Also write the rows to this file.")
  app.run(main)
