"""Quality and time of few steps of the flow, plain and distilled.

`python -m benchmarks.flow --workdir=RUN --data_dir=DIR [--train_steps=2000]
[--json=FILE]`: takes the hidden states that a trained run (of
`experiments/interaction.py:tiny`) has at its `<speak>` positions,
teacher-forced, and trains the flow head alone on them, once for velocities and
once with `map_weight` 1. Then both are sampled at held-out positions in 1, 2,
4 and 8 steps; the second by Euler, too, as if it had no map.

- mel dB: RMS error of a sample against the recorded mel. A sample that keeps
  to the mean has less than one of the right distribution.
- energy: energy distance between samples and recordings of standardised mel,
  over all held-out positions; 0 if they are distributed alike.
- spread dB: standard deviation of two samples of one condition.
- ms: one compiled call of the sampler for 1 and 16 sessions, median.
"""

import dataclasses
import functools
import json
import pathlib
import statistics
import sys
import time

if not __package__:  # run as a file
  sys.path[0] = str(pathlib.Path(__file__).parents[1])

from absl import flags, logging

from benchmarks import timing
from tml_jax.config import Config
from tml_jax.config import flags as config_flags
from tml_jax.data.splits import Split
from tml_jax.training import trained

_TRAIN_STEPS = flags.DEFINE_integer("train_steps", 2000, "Of each head.")
_BATCHES = flags.DEFINE_integer("batches", 60, "To train on; a sixth to test.")
_BATCH = 128  # positions in a step
_PEAK = 2e-3  # of the learning rate
_STEPS = (1, 2, 4, 8)
_ROUNDS = 30


def hidden_states(config: Config, *, agent, split: Split, batches: int):
  """Conditions [P, D] and mel [P, 16, 80] at all `<speak>` positions."""
  import jax
  import numpy as np

  from tml_jax.data import loader as loader_lib
  from tml_jax.models import interaction
  from tml_jax.training import run_tokenizer

  @jax.jit
  def run(variables, batch):
    hidden, _ = agent.model.apply(
      variables, batch.packed, method=agent.model.hidden
    )
    return interaction.take(hidden, batch.speech.positions)

  data_dir = config_flags.data_dir()
  loader = loader_lib.Loader(
    config,
    data_dir=data_dir,
    split=split,
    tokenizer_file=run_tokenizer.of_run(
      config_flags.WORKDIR.value,
      given=config_flags.TOKENIZER.value,
      data_dir=data_dir,
    ),
  )
  conditions, mels = [], []
  for _ in range(batches):
    batch = next(loader)
    used = batch.speech.weights > 0
    conditions.append(np.asarray(run(agent.variables, batch))[used])
    mels.append(batch.speech.mel[used])
  loader.close()
  return np.concatenate(conditions), np.concatenate(mels)


def train_head(config: Config, *, data, steps: int):
  """A head trained from nothing on `data`: its velocity, compiled."""
  import jax
  import jax.numpy as jnp
  import numpy as np
  import optax
  from flax import linen as nn

  from tml_jax.models import execution, flow_head

  head = flow_head.FlowHead(config.model, execution.PLAIN)
  condition, mel = data
  t = jnp.zeros(1)
  params = nn.meta.unbox(
    head.init(jax.random.key(0), mel[:1], t, condition[:1], t)
  )
  optimizer = optax.chain(
    optax.clip_by_global_norm(1.0),
    optax.adamw(optax.warmup_cosine_decay_schedule(0, _PEAK, 50, steps)),
  )

  def loss(params, mel, condition, key):
    return flow_head.flow_loss(
      functools.partial(head.apply, params),
      mel_FC=mel,
      cond_D=condition,
      null_D=head.apply(params, method=head.null),
      rng=key,
      config=config.model.flow,
    ).mean()

  @jax.jit
  def step(params, average, state, mel, condition, key):
    value, gradient = jax.value_and_grad(loss)(params, mel, condition, key)
    updates, state = optimizer.update(gradient, state, params)
    params = optax.apply_updates(params, updates)
    average = jax.tree.map(
      lambda old, new: 0.99 * old + 0.01 * new, average, params
    )
    return params, average, state, value

  state, average = optimizer.init(params), params
  random, start = np.random.default_rng(0), time.monotonic()
  for k in range(steps):
    rows = random.integers(len(mel), size=_BATCH)
    key = jax.random.fold_in(jax.random.key(1), k)
    params, average, state, value = step(
      params, average, state, mel[rows], condition[rows], key
    )
    if k % 200 == 199:
      logging.info("step %d loss %.4f", k + 1, value)
  logging.info("%.3f s a step", (time.monotonic() - start) / steps)
  return functools.partial(head.apply, average), head.apply(
    average, method=head.null
  )


def row(config: Config, *, trained_head, data, steps: int, map_weight: float):
  """One line of the table."""
  import jax
  import numpy as np

  from tml_jax.models import flow_head

  velocity, null = trained_head
  flow = dataclasses.replace(
    config.model.flow, steps=steps, map_weight=map_weight
  )

  @jax.jit
  def sample(condition, key):
    noise = flow_head.noise(
      jax.random.split(key, len(condition)), shape=(16, 80), temperature=1.0
    )
    return flow_head.sample(
      velocity, cond_D=condition, null_D=null, noise_FC=noise, config=flow
    )

  condition, mel = data
  draws = [
    np.asarray(sample(condition, jax.random.key(seed))) for seed in (2, 3)
  ]
  std = config.model.flow.mel_std
  spread = np.square(draws[0] - draws[1]).mean() / 2
  result = {
    "steps": steps,
    "mel_db": 20 * float(np.sqrt(np.square(draws[0] - mel).mean())),
    "energy": energy_distance(draws[0] / std, mel / std),
    "spread_db": 20 * float(np.sqrt(spread)),
  }
  for size in (1, 16):
    times = []
    for k in range(_ROUNDS + 2):
      start = time.perf_counter()
      jax.block_until_ready(sample(condition[:size], jax.random.key(k)))
      times.append(time.perf_counter() - start)
    result[f"ms_{size}"] = 1000 * statistics.median(times[2:])
  return result


def energy_distance(ours, theirs) -> float:
  """2 E|x - y| - E|x - x'| - E|y - y'| over sqrt(dims), x ours, y theirs."""
  import numpy as np

  def mean_distance(a, b, *, same: bool) -> float:
    a, b = (z.reshape(len(z), -1).astype(np.float64) for z in (a, b))
    square = (a**2).sum(1)[:, None] + (b**2).sum(1) - 2 * a @ b.T
    total = np.sqrt(np.maximum(square, 0) / a.shape[1]).sum()
    return total / (len(a) * (len(b) - same))

  return (
    2 * mean_distance(ours, theirs, same=False)
    - mean_distance(ours, ours, same=True)
    - mean_distance(theirs, theirs, same=True)
  )


def markdown(rows: list[dict]) -> str:
  lines = [
    "# Few steps of the flow",
    "",
    timing.made(),
    "",
    "`python -m benchmarks.flow`, what the columns mean is said there:"
    f" {_TRAIN_STEPS.value} steps of each head on the states of a trained"
    " `tiny`, held-out prompts. `map` is the distilled sampler, whose steps"
    " are jumps (`model.flow.map_weight`).",
    "",
    "| head | sampler | steps | mel dB | energy | spread dB | ms, 1 session"
    " | ms, 16 |",
    "|---|---|--:|--:|--:|--:|--:|--:|",
  ]
  for r in rows:
    lines.append(
      f"| {r['head']} | {r['sampler']} | {r['steps']} | {r['mel_db']:.1f} |"
      f" {r['energy']:.4f} | {r['spread_db']:.1f} | {r['ms_1']:.1f} |"
      f" {r['ms_16']:.1f} |"
    )
  return "\n".join(lines) + "\n"


def main(config: Config) -> None:
  path, data_dir = config_flags.WORKDIR.value, config_flags.data_dir()
  trained.check(path)
  agent = trained.load(config, path=path, data_dir=data_dir)
  count = _BATCHES.value
  train, test = (
    hidden_states(config, agent=agent, split=split, batches=batches)
    for split, batches in (
      (Split.TRAIN, count),
      (Split.HELDOUT, max(1, count // 6)),
    )
  )
  logging.info("%d positions, %d to test", len(train[0]), len(test[0]))
  rows = []
  for name, weight in (("velocity alone", 0.0), ("with map", 1.0)):
    flow = dataclasses.replace(config.model.flow, map_weight=weight)
    config = dataclasses.replace(
      config, model=dataclasses.replace(config.model, flow=flow)
    )
    head = train_head(config, data=train, steps=_TRAIN_STEPS.value)
    forms = {"Euler": 0.0} | ({"map": weight} if weight else {})
    rows += [
      {"head": name, "sampler": form}
      | row(
        config, trained_head=head, data=test, steps=steps, map_weight=by_map
      )
      for form, by_map in forms.items()
      for steps in _STEPS
    ]
  text = markdown(rows)
  pathlib.Path(__file__).with_suffix(".md").write_text(text, encoding="utf-8")
  print(text)
  if config_flags.JSON.value:
    pathlib.Path(config_flags.JSON.value).write_text(
      json.dumps({"rows": rows, "step": agent.step}, indent=2) + "\n",
      encoding="utf-8",
    )


if __name__ == "__main__":
  config_flags.run(main, config_from=config_flags.ConfigFrom.WORKDIR)
