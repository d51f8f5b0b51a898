"""Live sessions on this machine: `python -m benchmarks.session --json=FILE`.

Tick times of 1, 4 and 16 sessions of `tiny`, what they are made of, an hour of
one session, the gain over computing the whole past again, and the two forms
of a tick's experts. Writes benchmarks/session.md beside this file too. The
weights are random and one text token is allowed, so that every session is
busy: it speaks in half of its windows and says or shows something in most.
"""

import dataclasses
import functools
import json
import pathlib
import statistics
import time

import jax
import jax.numpy as jnp
import numpy as np
from absl import app, flags
from flax import linen as nn

from benchmarks import moe, timing
from experiments import interaction as sizes
from experiments import vocoder as vocoders
from tml_jax.config import Config, Numerics
from tml_jax.live import pool as pool_lib
from tml_jax.live import session as session_lib
from tml_jax.live import tick as tick_lib
from tml_jax.parallel import mesh as mesh_lib
from tml_jax.streams import batch as batch_lib
from tml_jax.streams import clock, packing
from tml_jax.training import program as program_lib
from tml_jax.training import state as state_lib
from tml_jax.vocoder import network as network_lib
from tml_jax.vocoder import stream

SESSIONS = (1, 4, 16)
MINUTE = 300  # windows


def config() -> Config:
  tiny = sizes.get_config("tiny")
  return dataclasses.replace(
    tiny, sample=dataclasses.replace(tiny.sample, temperature=1.0, top_p=1.0)
  )


@functools.cache
def variables(cfg: Config):
  model = state_lib.create_sampler(cfg)
  example = state_lib.example_batch(cfg, batch_size=1).packed
  init = jax.jit(lambda key: nn.unbox(model.init(key, example)))
  return init(jax.random.key(0))


def pool(cfg: Config, *, sessions: int) -> pool_lib.SessionPool:
  """A full pool, compiled."""
  made = pool_lib.SessionPool(
    cfg,
    model=state_lib.create_sampler(cfg),
    variables=variables(cfg),
    slots=sessions,
    text_pieces=1,
  )
  made.warm_up({session_lib.Senses.SOUND})
  for seed in range(sessions):
    made.join(seed=seed)
  return made


@dataclasses.dataclass
class Talk:
  """What windows of a pool took."""

  milliseconds: list[float] = dataclasses.field(default_factory=list)
  tokens: int = 0
  spoken: int = 0
  frames: int = 0

  def run(self, made: pool_lib.SessionPool, *, windows: int) -> None:
    random = np.random.default_rng(0)
    sound = 0.1 * random.standard_normal((16, clock.TICKS.samples))
    sound = sound.astype(np.float32)
    for k in range(windows):
      start = time.perf_counter()
      inputs = {s: s.perceive(sound[k % 16]) for s in made.sessions}
      ticked = made.tick(inputs)
      self.milliseconds.append(1e3 * (time.perf_counter() - start))
      self.tokens += int(ticked.counts.sum())
      self.spoken += sum(frame.speak for frame in ticked.frames.values())
      self.frames += len(ticked.frames)

  def quantiles(self) -> dict[str, float]:
    values = np.array(self.milliseconds)
    return {
      "tick_ms_p50": float(np.percentile(values, 50)),
      "tick_ms_p99": float(np.percentile(values, 99)),
      "tick_ms_max": float(values.max()),
      "tokens_per_window": self.tokens / self.frames,
      "speaking_share": self.spoken / self.frames,
    }


def parts(cfg: Config, *, sessions: int) -> dict[str, float]:
  """Milliseconds of a tick's parts, each compiled alone on the same shapes."""
  made = pool(cfg, sessions=sessions)
  bound = state_lib.create_sampler(cfg).bind(variables(cfg))
  chunk = pool_lib.empty_chunk(cfg, session_lib.Senses.SOUND, slots=sessions)
  for slot, session in enumerate(made.sessions):
    frame = session.perceive(np.zeros(clock.TICKS.samples, np.float32))
    tick_lib.write_inputs(chunk, frame, row=slot, config=cfg)
  keys = jax.random.split(jax.random.key(0), sessions)
  active = jnp.ones(sessions, bool)
  token = jnp.zeros(sessions, jnp.int32)

  @functools.partial(jax.jit, donate_argnums=0)
  def prefill(cache):
    return bound.extend(chunk, cache)

  @functools.partial(jax.jit, donate_argnums=0)
  def one_token(cache):
    piece = tick_lib._token_chunk(token, active, chunk=chunk, config=cfg)
    hidden, cache = bound.extend(piece, cache)
    return bound.logits(hidden[:, 0]), cache

  @jax.jit
  def flow(hidden):
    return tick_lib._sound(bound, hidden, keys, config=cfg)

  hidden = jnp.ones((sessions, cfg.model.d_model), cfg.train.dtype)
  network = network_lib.Vocoder(vocoders.get_config("small").model)
  example = network_lib.example(network.config, batch_size=1, frames=1)
  speak = functools.partial(
    stream.speak,
    network=network,
    variables=nn.unbox(jax.jit(network.init)(jax.random.key(0), *example)),
  )
  mel = jnp.full((sessions, clock.TICKS.fine_frames, clock.MEL_CHANNELS), -2.0)

  def with_cache(function):
    return timing.threaded(function, pool_lib.empty_cache(cfg, sessions))

  return {
    "voice": timing.threaded(
      lambda state: speak(state, mel, active)[::-1],
      stream.start(network, batch_size=sessions),
    ),
    "prefill": with_cache(prefill),
    "token": with_cache(one_token),
    "flow": with_cache(lambda cache: (flow(hidden), cache)),
  }


def ticks(cfg: Config, *, windows: int) -> dict[str, dict[str, float]]:
  """Rows by number of sessions."""
  rows = {}
  for sessions in SESSIONS:
    talk = Talk()
    made = pool(cfg, sessions=sessions)
    talk.run(made, windows=windows)
    row = talk.quantiles()
    part = parts(cfg, sessions=sessions)
    # The loop goes on until the last session has decided.
    whole = row["tick_ms_p50"]
    row["prefill_share"] = part["prefill"] / whole
    row["flow_share"] = part["flow"] / whole
    row["decode_share"] = 1 - row["prefill_share"] - row["flow_share"]
    row["token_ms"] = part["token"]
    row["voice_ms"] = part["voice"]
    row["realtime_factor"] = sessions * clock.TICKS.ms / (whole + part["voice"])
    # The window that is answered has to end first. Its sound lags a bit.
    lag_ms = 1e3 * stream.DELAY / clock.SAMPLE_RATE
    row["first_audio_ms"] = clock.TICKS.ms + whole + part["voice"] + lag_ms
    rows[str(sessions)] = row
  return rows


def resident_mib() -> float:
  for line in pathlib.Path("/proc/self/status").read_text().splitlines():
    if line.startswith("VmRSS"):
      return int(line.split()[1]) / 1024
  raise ValueError("/proc/self/status has no VmRSS")


def long_session(cfg: Config, *, windows: int) -> dict[str, float]:
  """One session: time of its last minute over its first, growth of memory."""
  made, talk = pool(cfg, sessions=1), Talk()
  talk.run(made, windows=MINUTE)
  before = resident_mib()
  talk.run(made, windows=windows - MINUTE)
  first, last = (
    statistics.median(talk.milliseconds[part])
    for part in (slice(0, MINUTE), slice(-MINUTE, None))
  )
  return {
    "long_windows": windows,
    "long_positions": int(made._cache.lengths_B[0]),
    "first_minute_ms": first,
    "last_minute_ms": last,
    "last_over_first_minute": last / first,
    "rss_mib": resident_mib(),
    "rss_growth_mib": resident_mib() - before,
  }


def recompute(
  cfg: Config, *, minutes_of_past: list[int], tick_ms: float, per_window: float
):
  """Milliseconds of the whole past in one forward pass, by minutes of it."""
  model = state_lib.create_sampler(cfg)
  rows = {}
  for minutes in minutes_of_past:
    length = int(minutes * MINUTE * per_window)
    audio = minutes * MINUTE * clock.TICKS.audio_tokens
    streams = dataclasses.replace(
      cfg.streams, seq_len=length, max_audio=min(audio, length)
    )
    packed = state_lib.example_batch(
      dataclasses.replace(cfg, streams=streams), batch_size=1
    ).packed
    packed = packed._replace(
      segment_ids=jnp.ones_like(packed.segment_ids),
      positions=jnp.arange(length)[None],
    )
    run = jax.jit(
      lambda variables, packed: model.apply(
        variables, packed, method=model.hidden
      )[0]
    )
    times = []
    for _ in range(2):
      start = time.perf_counter()
      jax.block_until_ready(run(variables(cfg), packed))
      times.append(1e3 * (time.perf_counter() - start))
    rows[str(minutes)] = {
      "positions": length,
      "recompute_ms": times[1],
      "speed_up": times[1] / tick_ms,
    }
  return rows


def invariant_cost(cfg: Config) -> dict[str, float]:
  """Time of invariant numerics over default: ticks and the train step."""
  forms = [dataclasses.replace(cfg, numerics=n) for n in Numerics]
  ratios = {}
  for sessions in SESSIONS:
    pools = [pool(form, sessions=sessions) for form in forms]
    talks = [Talk() for _ in forms]
    for _ in range(8):
      for made, talk in zip(pools, talks, strict=True):
        talk.run(made, windows=10)
    times = [statistics.median(talk.milliseconds) for talk in talks]
    ratios[f"tick of {sessions}"] = times[1] / times[0]
  recordings = {}
  made = pools[0]
  for _ in range(50):
    silence = np.zeros(clock.TICKS.samples, np.float32)
    ticked = made.tick({s: s.perceive(silence) for s in made.sessions})
    for session, frame in ticked.frames.items():
      recordings.setdefault(session, []).append(frame)
  sequences = packing.pack(list(recordings.values()), config=cfg.streams)
  sequences = sequences[: cfg.train.global_batch_size]
  batch = batch_lib.stack(sequences, like=sequences[0])
  steps = [_train_step(form) for form in forms]
  times = [[], []]
  for _ in range(8):
    for step, own in zip(steps, times, strict=True):
      start = time.perf_counter()
      step(batch)
      own.append(time.perf_counter() - start)
  default, invariant = (statistics.median(own[1:]) for own in times)
  return ratios | {"train step": invariant / default}


def _train_step(cfg: Config):
  """Runs a compiled step on a state of its own."""
  mesh = mesh_lib.create(cfg.mesh, devices=jax.devices()[:1])
  program = program_lib.create(cfg, mesh=mesh)
  compiled = program.compile(program.lower())
  state = state_lib.create(program.abstract, seed=0)

  def run(batch):
    nonlocal state
    on_device = jax.device_put(batch, program.batch_sharding)
    state, values = compiled(state, on_device)
    jax.block_until_ready((state, values))

  return run


def markdown(numbers) -> str:
  lines = [
    "# Live sessions",
    "",
    "`python -m benchmarks.session`, the machine of [README.md](README.md)."
    " Size `tiny`, random weights, every session busy. The voice (network and"
    " phases of `experiments/vocoder.py:small`) is a call of its own behind the"
    " tick; it lags 62.5 ms.",
    "",
    "| sessions | tick ms p50 | p99 | max | tokens a window | speaking |"
    " prefill | decode | flow | a token, ms | voice, ms | times real time |"
    " first sound, ms |",
    "|---:|---:|---:|---:|---:|---:|---:|---:|---:|---:|---:|---:|---:|",
  ]
  for sessions, row in numbers["by_sessions"].items():
    lines.append(
      f"| {sessions} | {row['tick_ms_p50']:.1f} | {row['tick_ms_p99']:.1f} |"
      f" {row['tick_ms_max']:.1f} | {row['tokens_per_window']:.1f} |"
      f" {row['speaking_share']:.0%} | {row['prefill_share']:.0%} |"
      f" {row['decode_share']:.0%} | {row['flow_share']:.0%} |"
      f" {row['token_ms']:.1f} | {row['voice_ms']:.1f} |"
      f" {row['realtime_factor']:.0f} | {row['first_audio_ms']:.0f} |"
    )
  lines += [
    "",
    f"One session of {numbers['long_windows']:,} windows"
    f" ({numbers['long_positions']:,} positions): a tick took"
    f" {numbers['first_minute_ms']:.2f} ms in the first minute and"
    f" {numbers['last_minute_ms']:.2f} ms in the last"
    f" (ratio {numbers['last_over_first_minute']:.3f}); resident memory grew"
    f" by {numbers['rss_growth_mib']:.1f} MiB after the first minute, of"
    f" {numbers['rss_mib']:.0f}.",
    "",
    "| minutes of past | positions | computed again, ms | tick is faster by |",
    "|---:|---:|---:|---:|",
  ]
  for minutes, row in numbers["recompute"].items():
    lines.append(
      f"| {minutes} | {row['positions']:,} | {row['recompute_ms']:,.0f} |"
      f" {row['speed_up']:,.0f} x |"
    )
  lines += [
    "",
    "| experts of one output token a session | grouped, ms | gathered, ms |"
    " gathered / grouped |",
    "|---|---:|---:|---:|",
  ]
  for title, (grouped, gathered, _) in numbers["experts"].items():
    lines.append(
      f"| {title} | {grouped['median_ms']:.3f} | {gathered['median_ms']:.3f} |"
      f" {gathered['ratio']:.2f} |"
    )
  lines += [
    "",
    "`--config.numerics=invariant` over default, in time:"
    + ",".join(
      f" {name} {ratio:.2f}"
      for name, ratio in numbers["invariant_over_default"].items()
    )
    + ".",
  ]
  return "\n".join(lines) + "\n"


def main(argv):
  if len(argv) > 1:
    raise app.UsageError(f"unknown argument {argv[1]!r}; flags only")
  cfg, numbers = config(), {}

  def keep(**found) -> None:
    """What is measured is written at once: an hour takes its time."""
    numbers.update(found)
    print(found, flush=True)
    if _JSON.value:
      text = json.dumps(numbers, indent=1)
      pathlib.Path(_JSON.value).write_text(text + "\n")

  by_sessions = ticks(cfg, windows=_WINDOWS.value)
  most = by_sessions[str(SESSIONS[-1])]
  keep(
    sessions=SESSIONS[-1],
    **{k: most[k] for k in ("tick_ms_p50", "tick_ms_p99", "tick_ms_max")},
    by_sessions=by_sessions,
  )
  keep(experts=moe.few(rounds=31))
  keep(**long_session(cfg, windows=_LONG.value))
  keep(invariant_over_default=invariant_cost(cfg))
  keep(
    recompute=recompute(
      cfg,
      minutes_of_past=_MINUTES.value,
      tick_ms=by_sessions["1"]["tick_ms_p50"],
      per_window=numbers["long_positions"] / numbers["long_windows"],
    )
  )
  text = markdown(numbers)
  pathlib.Path(__file__).with_suffix(".md").write_text(text)
  print(text)


if __name__ == "__main__":  # others import the parts
  _JSON = flags.DEFINE_string(
    "json", "", "Also write the numbers to this file."
  )
  _WINDOWS = flags.DEFINE_integer("windows", 200, "Of each tick measurement.")
  _LONG = flags.DEFINE_integer("long_windows", 18_000, "Of the long session.")
  _MINUTES = flags.DEFINE_multi_integer(
    "minutes", [1, 5, 15], "Of past that is computed again."
  )
  app.run(main)
