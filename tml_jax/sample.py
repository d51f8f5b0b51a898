"""Talk to a run: `python -m tml_jax.sample --workdir=RUN --data_dir=DIR ...`.

For: hearing and seeing what a trained model does with a recorded user
(--input=user.wav) or with the user of a scenario (--scenario=heldout:3), and
with tools (--tools=calculator,clock; docs/tools.md).
Not for: numbers over many conversations (`evaluate`) or a live microphone.
Writes sound, transcript, tick log and a picture into --out.
"""

import functools
import math
import pathlib

from absl import flags

from tml_jax import errors
from tml_jax import files as files_lib
from tml_jax.config import Config
from tml_jax.config import flags as config_flags
from tml_jax.data import flags as data_flags
from tml_jax.streams import clock
from tml_jax.tools import flags as flags_lib
from tml_jax.training import trained

TICKS = "ticks.jsonl"

_INPUT = flags.DEFINE_string("input", "", "What the user says: sound or video.")
_SCENARIO = flags.DEFINE_string(
  "scenario", "", "Instead of --input: SPLIT:INDEX, for instance heldout:3."
)
_VIDEO = flags.DEFINE_string("video", "", "A clip that starts with the input.")
_VIDEO_FPS = flags.DEFINE_float(
  "video_fps", 1.0, "Frames a second kept of --video.", lower_bound=0.01
)
_TEXT = flags.DEFINE_multi_string(
  "text", [], "What the user types: SECONDS:TEXT; may be given again."
)
_TAIL = flags.DEFINE_float(
  "tail", 4.0, "Seconds of silence after --input.", lower_bound=0.0
)
_REALTIME = flags.DEFINE_bool(
  "realtime", False, "Play against the clock and report missed deadlines."
)
_LOSE = flags.DEFINE_float(
  "lose",
  0.0,
  "Share of the user's windows that are lost on their way.",
  lower_bound=0.0,
  upper_bound=1.0,
)
_SEED = flags.DEFINE_integer(
  "seed", 0, "Of every draw.", lower_bound=0, upper_bound=2**31 - 1
)
_VOCODER = flags.DEFINE_string(
  "vocoder",
  "griffin_lim",
  "What makes sound of mel: griffin_lim (after the session), phases (as a live"
  " session would, without weights), or the workdir of a trained vocoder.",
)


def main(config: Config) -> None:
  workdir = config_flags.WORKDIR.value
  trained.check(workdir)
  if _VOCODER.value not in ("griffin_lim", "phases"):
    trained.check(_VOCODER.value, flag="vocoder", command="train_vocoder")
  _check_flags()
  data_dir = data_flags.data_dir()
  runner = flags_lib.runner()

  from tml_jax.live import user
  from tml_jax.streams import tokenizer as tokenizer_lib

  tokenizer = tokenizer_lib.Tokenizer.load(
    tokenizer_lib.path(data_dir), config=config.streams
  )
  timeline = _timeline(config, data_dir=data_dir)
  if runner is not None:
    timeline = flags_lib.without_results(timeline)
  grid = clock.of(config.streams)
  part = user.UserPart(timeline, tokenizer=tokenizer, grid=grid)
  part.check_room(config.streams)
  out = _check_out(config_flags.OUT.value)

  # jax starts here: bad input has been refused by now.
  from tml_jax.live import pool as pool_lib
  from tml_jax.live import realtime
  from tml_jax.logs import observe, report, ticks

  agent = trained.load(config, path=workdir, data_dir=data_dir)
  pool = pool_lib.SessionPool(
    config,
    model=agent.model,
    variables=agent.variables,
    slots=1,
    text_pieces=tokenizer.num_pieces,
  )
  attached = flags_lib.Attached(
    runner, timeline=timeline, tokenizer=tokenizer, config=config, out=out
  )
  pool.warm_up(part.senses | attached.senses)
  session = pool.join(seed=_SEED.value)
  course = realtime.hold(
    pool,
    session=session,
    part=part,
    results=attached.step,
    pace=realtime.WallClock() if _REALTIME.value else None,
    lost=realtime.losses(len(part), share=_LOSE.value, seed=_SEED.value),
  )
  log = observe.from_frames(
    course.frames,
    timeline=timeline,
    tokenizer=tokenizer,
    grid=grid,
    seconds=course.tick_seconds,
    provenance={"step": agent.step, "seed": _SEED.value},
  )
  held = report.Held(
    timeline=timeline,
    frames=course.frames,
    tick_seconds=course.tick_seconds,
    title=f"{timeline.id}   {config.name}, step {agent.step}, seed"
    f" {_SEED.value}",
    grid=grid,
    files={TICKS: ticks.to_text(log).encode()} | attached.close(),
  )
  try:
    summary = report.write(
      held, directory=out, render=_render(config), tokenizer=tokenizer
    )
  except OSError as error:
    raise errors.UserError(
      f"--out={out} cannot be written ({error.strerror}); nothing was changed"
    ) from error
  print(summary)
  if _REALTIME.value:
    print(course)


def _timeline(config: Config, *, data_dir: str):
  """The conversation that --scenario or --input and its like name."""
  from tml_jax.data import mixture
  from tml_jax.live import user

  if _SCENARIO.value:
    return mixture.pick(
      config, argument=_SCENARIO.value, flag="scenario", data_dir=data_dir
    )
  return user.from_files(
    _INPUT.value,
    video_path=_VIDEO.value,
    video_fps=_VIDEO_FPS.value,
    lines=[user.parse_line(argument) for argument in _TEXT.value],
    tail=_TAIL.value,
    config=config.streams,
  )


def _render(config: Config):
  """The `report.Render` that --vocoder names."""
  from tml_jax.vocoder import griffin_lim, stream

  grid = clock.of(config.streams)
  if _VOCODER.value == "griffin_lim":
    iterations = config.sample.griffin_lim_iterations
    return functools.partial(
      griffin_lim.render, grid=grid, iterations=iterations, seed=0
    )
  network, variables = None, {}
  if _VOCODER.value != "phases":
    network, variables = trained.load_vocoder(_VOCODER.value)
  return functools.partial(
    stream.render, grid=grid, network=network, variables=variables
  )


def _check_flags() -> None:
  """Refuses flags that do not go together."""
  if bool(_INPUT.value) == bool(_SCENARIO.value):
    raise errors.UserError(
      "give either --input=user.wav or --scenario=heldout:3"
    )
  if _SCENARIO.value and (_VIDEO.value or _TEXT.value):
    raise errors.UserError(
      "--video and --text go with --input; a scenario has its own"
    )
  for name in ("tail", "video_fps", "lose"):
    if not math.isfinite(flags.FLAGS[name].value):
      raise errors.UserError(
        f"--{name}={flags.FLAGS[name].value}: give a finite number"
      )


def _check_out(path: str) -> pathlib.Path:
  """The directory --out, proved writable."""
  if not path:
    raise errors.UserError("--out is missing: name a directory to write")
  directory = pathlib.Path(path)
  files_lib.make(directory, what=f"--out={path}")
  return directory


if __name__ == "__main__":
  config_flags.run(main, config_from=config_flags.ConfigFrom.WORKDIR)
