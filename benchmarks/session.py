"""Live sessions on this machine: `python -m benchmarks.session --json=FILE`.

Tick times of 1, 4 and 16 sessions of `tiny`, without and with their sound, what
they are made of, an hour of one session, the gain over computing the whole past
again, the two forms of a tick's experts, and what drafted tokens save or cost.
Writes benchmarks/session.md beside this file too. The weights are random and
one text token is allowed, so that every session is busy: it speaks in half of
its windows and says or shows something in most.
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

import jax
import jax.numpy as jnp
import numpy as np
from absl import app, flags
from flax import linen as nn

from benchmarks import moe, timing
from experiments import interaction as sizes
from experiments import vocoder as vocoders
from tml_jax.config import Config, Numerics
from tml_jax.config import text as config_text
from tml_jax.live import conversation
from tml_jax.live import pool as pool_lib
from tml_jax.live import program as tick_program
from tml_jax.live import session as session_lib
from tml_jax.live import tick as tick_lib
from tml_jax.live.transport import Arrived
from tml_jax.parallel import mesh as mesh_lib
from tml_jax.streams import batch as batch_lib
from tml_jax.streams import clock, packing
from tml_jax.training import program as program_lib
from tml_jax.training import state as state_lib
from tml_jax.vocoder import network as network_lib
from tml_jax.vocoder import stream

SESSIONS = (1, 4, 16)
MINUTE = 300  # windows
_TURN = 10  # windows of one pool before the other has its turn


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


@functools.cache
def voice() -> stream.Voice:
  """The network of `experiments/vocoder.py:small`, random weights."""
  network = network_lib.Vocoder(vocoders.get_config("small").model)
  example = network_lib.example(network.config, batch_size=1, frames=1)
  init = jax.jit(network.init)(jax.random.key(0), *example)
  return stream.Voice(network=network, variables=nn.unbox(init))


class Letters:
  """Shown text is not looked at."""

  def decode(self, tokens: list[int]) -> str:
    return " ".join(map(str, tokens))


class Busy:
  """A transport that counts what it takes; `Talk` brings its windows."""

  def __init__(self):
    self.tokens = self.spoken = self.frames = 0

  def take(self, answer) -> None:
    frame = answer.frame
    written = sum(len(burst.tokens) + 2 for burst in frame.text_out)
    self.tokens += len(frame.say) + written + 1
    self.spoken += frame.speak
    self.frames += 1


class Talk:
  """Busy conversations in a full, compiled pool, and what windows took."""

  def __init__(
    self,
    cfg: Config,
    *,
    sessions: int,
    voice: stream.Voice | None = None,
    weights: dict | None = None,
  ):
    program = tick_program.on_device(
      cfg,
      model=state_lib.create_sampler(cfg),
      sessions=sessions,
      text_pieces=1,
    )
    self.pool = pool_lib.SessionPool(
      program, variables=weights or variables(cfg), voice=voice
    )
    self.pool.warm_up({session_lib.Senses.SOUND})
    self._room = conversation.Room(self.pool, tokenizer=Letters())
    self._busy = [Busy() for _ in range(sessions)]
    self._talking = [
      self._room.join(conversation.Guest(busy, seed=seed))
      for seed, busy in enumerate(self._busy)
    ]
    self.milliseconds: list[float] = []
    self._drafted = 0

  def run(self, *, windows: int) -> None:
    random = np.random.default_rng(0)
    sound = 0.1 * random.standard_normal((16, clock.TICKS.samples))
    sound = sound.astype(np.float32)
    for k in range(windows):
      start = time.perf_counter()
      stepped = self._room.step(
        {each: Arrived(sound[k % 16]) for each in self._talking}
      )
      self._drafted += stepped.drafted
      self.milliseconds.append(1e3 * (time.perf_counter() - start))

  def quantiles(self) -> dict[str, float]:
    values = np.array(self.milliseconds)
    frames = sum(busy.frames for busy in self._busy)
    tokens = sum(busy.tokens for busy in self._busy)
    return {
      "ms_p50": float(np.percentile(values, 50)),
      "ms_p99": float(np.percentile(values, 99)),
      "ms_max": float(values.max()),
      "tokens_per_window": tokens / frames,
      "drafted_share": self._drafted / tokens,
      "speaking_share": sum(busy.spoken for busy in self._busy) / frames,
    }


def parts(cfg: Config, *, sessions: int) -> dict[str, float]:
  """Milliseconds of a tick's parts, each compiled alone on the same shapes."""
  made = Talk(cfg, sessions=sessions).pool
  bound = state_lib.create_sampler(cfg).bind(variables(cfg))
  senses = session_lib.Senses.SOUND
  chunk = tick_program.empty_chunk(cfg, senses, slots=sessions)
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
  mel = jnp.full((sessions, clock.TICKS.fine_frames, clock.MEL_CHANNELS), -2.0)

  def with_cache(function):
    return timing.threaded(function, tick_program.empty_cache(cfg, sessions))

  return {
    "voice": timing.threaded(
      lambda state: voice().speak(
        state, mel, active, ticked_B=np.ones(sessions, bool)
      )[::-1],
      voice().start(batch_size=sessions),
    ),
    "prefill": with_cache(prefill),
    "token": with_cache(one_token),
    "flow": with_cache(lambda cache: (flow(hidden), cache)),
  }


def ticks(cfg: Config, *, windows: int) -> dict[str, dict[str, float]]:
  """Rows by number of sessions."""
  rows = {}
  for sessions in SESSIONS:
    talks = {
      "tick": Talk(cfg, sessions=sessions),
      "tick_with_sound": Talk(cfg, sessions=sessions, voice=voice()),
    }
    for start in range(0, windows, _TURN):  # a busy moment meets both alike
      for talk in talks.values():
        talk.run(windows=min(_TURN, windows - start))
    row = {}
    for name, talk in talks.items():
      for key, value in talk.quantiles().items():
        row[f"{name}_{key}" if key.startswith("ms") else key] = value
    part = parts(cfg, sessions=sessions)
    # The loop goes on until the last session has decided.
    whole = row["tick_ms_p50"]
    row["prefill_share"] = part["prefill"] / whole
    row["flow_share"] = part["flow"] / whole
    row["decode_share"] = 1 - row["prefill_share"] - row["flow_share"]
    row["token_ms"] = part["token"]
    row["voice_ms"] = part["voice"]
    with_sound = row["tick_with_sound_ms_p50"]
    row["realtime_factor"] = sessions * clock.TICKS.ms / with_sound
    # The window that is answered has to end first. Its sound lags a bit.
    lag_ms = 1e3 * stream.DELAY / clock.SAMPLE_RATE
    row["first_audio_ms"] = clock.TICKS.ms + with_sound + lag_ms
    rows[str(sessions)] = row
  return rows


def resident_mib() -> float:
  for line in pathlib.Path("/proc/self/status").read_text().splitlines():
    if line.startswith("VmRSS"):
      return int(line.split()[1]) / 1024
  raise ValueError("/proc/self/status has no VmRSS")


def long_session(cfg: Config, *, windows: int) -> dict[str, float]:
  """One session: time of its last minute over its first, growth of memory."""
  talk = Talk(cfg, sessions=1)
  talk.run(windows=MINUTE)
  before = resident_mib()
  talk.run(windows=windows - MINUTE)
  first, last = (
    statistics.median(talk.milliseconds[part])
    for part in (slice(0, MINUTE), slice(-MINUTE, None))
  )
  return {
    "long_windows": windows,
    "long_positions": int(talk.pool._cache.lengths_B[0]),
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
    talks = [Talk(form, sessions=sessions) for form in forms]
    for _ in range(8):
      for talk in talks:
        talk.run(windows=_TURN)
    times = [statistics.median(talk.milliseconds) for talk in talks]
    ratios[f"tick of {sessions}"] = times[1] / times[0]
  recordings = {}
  made = talks[0].pool
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


def foreseeing(weights: dict) -> dict:
  """Of a model that sees no more than the last token, and is foreseen.

  What it says hangs on that token alone, and the first layer of multi-token
  prediction is told it: layers of the trunk add nothing, and that one passes
  the token on. So the first draft is always right.
  """

  def changed(path, leaf):
    names = [key.key for key in path]
    if names[-1] in ("output", "down", "shared_down"):
      return np.zeros_like(leaf)
    if names[-3:] == ["embed", "norm", "scale"]:
      return np.ones_like(leaf)
    if "layer_00" in names and names[-1] == "projection":
      size = leaf.shape[1]
      return np.eye(2 * size, size, -size, leaf.dtype)
    if "layer_00" in names and names[-2:] == ["token_norm", "scale"]:
      return weights["params"]["trunk"]["final_norm"]["scale"]
    return leaf

  return jax.tree_util.tree_map_with_path(changed, weights)


def drafts(cfg: Config, *, sessions: int) -> dict[str, float]:
  """Time of a tick that drafts a token over one that does not.

  Of a model whose drafts are all right, and of one whose are not.
  """
  cfg = config_text.with_fields(cfg, {"model.num_mtp_layers": 1})
  drafting = config_text.with_fields(cfg, {"sample.draft_tokens": 1})
  plain, found = variables(cfg), {}
  for name, weights in (("right", foreseeing(plain)), ("random", plain)):
    talks = [
      Talk(each, sessions=sessions, weights=weights) for each in (cfg, drafting)
    ]
    for _ in range(10):
      for talk in talks:
        talk.run(windows=_TURN)
    times = [statistics.median(talk.milliseconds) for talk in talks]
    found[name] = times[1] / times[0]
    found[f"{name}_drafted"] = talks[1].quantiles()["drafted_share"]
  return found


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
    timing.made(),
    "",
    "`python -m benchmarks.session`, the machine of [README.md](README.md)."
    " Size `tiny`, random weights, every session busy. The voice (network and"
    " phases of `experiments/vocoder.py:small`) is a call of its own behind the"
    " tick; it lags 62.5 ms.",
    "",
    "| sessions | tick ms p50 | p99 | max | with sound p50 | p99 | max |"
    " tokens a window | speaking | prefill | decode | flow | a token, ms |"
    " voice, ms | times real time | first sound, ms |",
    "|" + "---:|" * 16,
  ]
  for sessions, row in numbers["by_sessions"].items():
    lines.append(
      f"| {sessions} | {row['tick_ms_p50']:.1f} | {row['tick_ms_p99']:.1f} |"
      f" {row['tick_ms_max']:.1f} |"
      f" {row['tick_with_sound_ms_p50']:.1f} |"
      f" {row['tick_with_sound_ms_p99']:.1f} |"
      f" {row['tick_with_sound_ms_max']:.1f} |"
      f" {row['tokens_per_window']:.1f} |"
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
    "",
    *_of_drafts(numbers["drafts"]),
  ]
  return "\n".join(lines) + "\n"


def _of_drafts(numbers: dict[str, float]) -> list[str]:
  return [
    f"`--config.sample.draft_tokens=1` over none, in time of a tick of"
    f" {SESSIONS[-1]}: {numbers['right']:.2f} where all drafts are right"
    f" ({100 * numbers['right_drafted']:.0f} % of the tokens are drafted),"
    f" {numbers['random']:.2f} with random weights"
    f" ({100 * numbers['random_drafted']:.0f} %)."
  ]


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
    **{key: most[key] for key in most if "_ms_" in key and "tick" in key},
    by_sessions=by_sessions,
  )
  keep(experts=moe.few(rounds=31))
  keep(**long_session(cfg, windows=_LONG.value))
  keep(invariant_over_default=invariant_cost(cfg))
  keep(drafts=drafts(cfg, sessions=SESSIONS[-1]))
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
