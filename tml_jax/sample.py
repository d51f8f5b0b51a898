"""Talk to a run: `python -m tml_jax.sample --workdir=RUN --data_dir=DIR ...`.

For: hearing and seeing what a trained model does with a recorded user
(--input=user.wav) or with the user of a scenario (--scenario=heldout:3), and
with tools (--tools=calculator,clock; docs/tools.md).
Not for: numbers over many conversations (`evaluate`) or a live microphone.
Writes sound, transcript, tick log and a picture into --out; agent.wav grows
while the session runs.
"""

import math
import pathlib

import numpy as np
from absl import flags

from tml_jax import errors
from tml_jax import files as files_lib
from tml_jax.config import Config
from tml_jax.config import flags as config_flags
from tml_jax.streams import clock, microphone
from tml_jax.tools import flags as flags_lib
from tml_jax.training import run_tokenizer, trained
from tml_jax.vocoder import flags as vocoder_flags

TICKS = "ticks.jsonl"

_INPUT = flags.DEFINE_string("input", "", "What the user says: sound or video.")
_SCENARIO = flags.DEFINE_string(
  "scenario", "", "Instead of --input: SPLIT:INDEX, for instance heldout:3."
)
_SESSION = flags.DEFINE_string(
  "session",
  "",
  "Instead of --input: a folder that `serve --record` wrote, played again with"
  " its seed.",
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
flags.adopt_module_key_flags(flags_lib)  # `--help` shows them, too
flags.adopt_module_key_flags(vocoder_flags)


def main(config: Config) -> None:
  workdir = config_flags.WORKDIR.value
  trained.check(workdir)
  vocoder_flags.check(is_live=_REALTIME.value)
  _check_flags()
  data_dir = config_flags.data_dir(
    is_needed=bool(_SCENARIO.value) or not run_tokenizer.kept(workdir)
  )
  runner = flags_lib.runner()

  from tml_jax.live import user
  from tml_jax.streams import tokenizer as tokenizer_lib

  tokenizer_file = run_tokenizer.of_run(
    workdir, given=config_flags.TOKENIZER.value, data_dir=data_dir
  )
  tokenizer = tokenizer_lib.load(tokenizer_file, config=config.streams)
  grid = clock.of(config.streams)
  if _SESSION.value:
    from tml_jax.live import replay

    part = replay.Replay(_SESSION.value, config=config)
    timeline, seed = part.timeline(tokenizer), part.seed
  else:
    timeline = _timeline(
      config, data_dir=data_dir, tokenizer_file=tokenizer_file
    )
    if runner is not None:
      timeline = flags_lib.without_results(timeline)
    part = user.UserPart(timeline, tokenizer=tokenizer, grid=grid)
    seed = _SEED.value
  part.check_room(config.streams)
  out = _check_out(config_flags.OUT.value)

  # jax starts here: bad input has been refused by now.
  from tml_jax.live import conversation, realtime, session
  from tml_jax.live import pool as pool_lib
  from tml_jax.live import program as program_lib
  from tml_jax.logs import observe, report, ticks
  from tml_jax.logs import sound as sound_lib
  from tml_jax.vocoder import griffin_lim, stream

  agent = trained.load(
    config, path=workdir, data_dir=data_dir, tokenizer_file=tokenizer_file
  )
  voice = vocoder_flags.voice()
  pool = pool_lib.SessionPool(
    program_lib.on_device(
      config,
      model=agent.model,
      sessions=1,
      text_pieces=tokenizer.num_pieces,
    ),
    variables=agent.variables,
    voice=voice,
  )
  attached = flags_lib.Attached(
    runner, timeline=timeline, tokenizer=tokenizer, config=config, out=out
  )
  senses = {session.Senses.ALL} if attached.is_answered else set()
  pool.warm_up(part.senses | senses)

  # ----------------------------------------------------------- the session
  report.clear(out)
  (out / TICKS).unlink(missing_ok=True)
  lost = user.losses(len(part), share=_LOSE.value, seed=_SEED.value)
  recorded = user.Recorded(part, lost=lost)
  if voice is not None:
    track = sound_lib.Track(out / report.AGENT, grid=grid, delay=stream.DELAY)
    recorded.play = track.append
  transport = recorded
  if _REALTIME.value:
    pace = realtime.WallClock()
    transport = realtime.Realtime(recorded, grid=grid, pace=pace)
  guest = conversation.Guest(transport, seed=seed, tools=attached)
  conversation.hold(conversation.Room(pool, tokenizer=tokenizer), [guest])

  # ------------------------------------------------------ what it leaves
  seconds = np.array(recorded.seconds)
  log = observe.from_frames(
    recorded.frames,
    timeline=timeline,
    tokenizer=tokenizer,
    grid=grid,
    seconds=seconds,
    provenance={"step": agent.step, "seed": seed},
  )
  # First what took the time, whatever becomes of the rest.
  files_lib.write_atomically(out / TICKS, content=ticks.to_text(log))
  if voice is not None:
    heard = track.close(samples=len(part) * grid.samples)
  else:
    render = griffin_lim.of(config)
    heard = report.agent_audio(recorded.frames, render=render)
  held = report.Held(
    timeline=timeline,
    frames=recorded.frames,
    microphone=microphone.hear(timeline, grid=grid).reshape(-1),
    agent=heard,
    tick_seconds=seconds,
    title=f"{timeline.id}   {config.name}, step {agent.step}, seed {seed}",
    grid=grid,
    files=attached.close(),
  )
  try:
    summary = report.write(held, directory=out, tokenizer=tokenizer)
  except OSError as error:
    raise errors.UserError(
      f"--out={out} cannot be written ({error.strerror})"
    ) from error
  print(f"{summary}\nwrote {out / TICKS}")
  if _SESSION.value:
    same = part.same(recorded.frames)
    print(f"{same} of {len(part)} windows were decided as in the session")
    if part.fingerprint != pool.fingerprint:
      print("it was held with other weights, voice or options of sampling")
  if lost:
    print(f"{len(lost)} of {len(part)} windows were lost")
  if _REALTIME.value:
    print(transport)


def _timeline(config: Config, *, data_dir: str, tokenizer_file: str):
  """The conversation that --scenario or --input and its like name."""
  from tml_jax.data import mixture
  from tml_jax.live import user

  if _SCENARIO.value:
    return mixture.pick(
      config,
      argument=_SCENARIO.value,
      flag="scenario",
      data_dir=data_dir,
      tokenizer_file=tokenizer_file,
    )
  return user.from_files(
    _INPUT.value,
    video_path=_VIDEO.value,
    video_fps=_VIDEO_FPS.value,
    lines=[user.parse_line(argument) for argument in _TEXT.value],
    tail=_TAIL.value,
    config=config.streams,
  )


def _check_flags() -> None:
  """Refuses flags that do not go together."""
  given = [_INPUT.value, _SCENARIO.value, _SESSION.value]
  if sum(map(bool, given)) != 1:
    raise errors.UserError(
      "give either --input=user.wav or --scenario=heldout:3 or --session=DIR"
    )
  if _SESSION.value and flags_lib.TOOLS.value:
    raise errors.UserError(
      "--session has the results of its own tools: leave out --tools"
    )
  if not _INPUT.value and (_VIDEO.value or _TEXT.value):
    raise errors.UserError(
      "--video and --text go with --input; a scenario and a session have their"
      " own"
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
