"""Training: `python -m tml_jax.train --config=FILE.py:NAME --workdir=DIR`.

For: one run from nothing or from its last checkpoint to its last step. Not
for: numbers of a finished run (`evaluate`). Reads top to bottom; two hops lead
to the gradient (`training/step.py`, then `training/losses.py`). A killed run
is restarted by the same command.
"""

import contextlib
import faulthandler
import math
import resource
import signal
import sys
import time

from absl import flags, logging

from tml_jax import config_flags
from tml_jax import workdir as workdir_lib
from tml_jax.config import Config
from tml_jax.data import flags as data_flags
from tml_jax.training import profile_flags

_PROCESS_START = time.time()
_INIT_FROM = flags.DEFINE_string(
  "init_from",
  "",
  "Begin a new run with the weights of another: its workdir, or"
  " WORKDIR/checkpoints/STEP. A run that is resumed has its own.",
)


def main(config: Config, *, cleanup: contextlib.ExitStack) -> None:
  """The whole run; what it opens is closed by `cleanup`, however it ends."""
  workdir, data_dir = config_flags.WORKDIR.value, data_flags.data_dir()
  init_from = _INIT_FROM.value
  if init_from and not workdir_lib.has_checkpoints(workdir):
    check_weights(config, path=init_from)
  requested = profile_flags.requested(steps=config.train.steps)
  faulthandler.register(signal.SIGUSR1, all_threads=True)
  workdir_lib.create(workdir, config)
  # jax starts here: bad flags and directories have been refused by now.
  import jax

  from tml_jax.data import loader as loader_lib
  from tml_jax.data import splits
  from tml_jax.parallel import mesh as mesh_lib
  from tml_jax.training import (
    breakdown,
    checkpoint,
    flops,
    metrics,
    profiling,
    router_picture,
  )
  from tml_jax.training import program as program_lib
  from tml_jax.training import state as state_lib

  train = config.train
  mesh = mesh_lib.create(config.mesh)

  # ---------------------------------------------------------------- data
  if train.evaluate_every:
    check_held_out(config)
  loader = loader_lib.Loader(
    config,
    data_dir=data_dir,
    split=splits.Split.TRAIN,
    process_index=jax.process_index(),
    process_count=jax.process_count(),
  )
  cleanup.callback(loader.close)

  # ------------------------------------------------------ state on the mesh
  program = program_lib.create(config, mesh=mesh)
  abstract = program.abstract
  checkpointer = checkpoint.Checkpointer.to_train(
    workdir, keep=train.keep_checkpoints
  )
  cleanup.callback(checkpointer.close)  # waits for the save under way
  start = checkpointer.latest_step() or 0
  if start:
    state, loader_state = checkpointer.restore(abstract.state, step=start)
    loader.set_state(loader_state)
    logging.info("resumed from step %d of %s", start, workdir)
    if start >= train.steps:
      logging.info(
        "nothing to do: train.steps = %d; give more to go on", train.steps
      )
      return
  elif init_from:
    weights = checkpoint.Weights(init_from)
    variables = weights.restore(abstract.variables)
    state = state_lib.from_weights(abstract, variables=variables)
    weights.close()
    logging.info("weights of step %d of %s", weights.step, init_from)
  else:
    state = state_lib.create(abstract, seed=train.seed)

  # -------------------------------------------------------------- compile
  def put(batch):
    return {
      name: jax.make_array_from_process_local_data(
        program.batch_sharding, value
      )
      for name, value in batch.items()
    }

  compile_start = time.time()
  train_step = program.compile(program.lower())
  peak, peak_source = flops.device_peak()
  logging.info(
    "compiled in %.1f s; %.1f GFLOP a step; peak %.0f GFLOP/s a device (%s)",
    time.time() - compile_start,
    flops.step_flops(config) / 1e9,
    peak / 1e9,
    peak_source,
  )

  # ------------------------------------------------------------- the loop
  stop = Preemption()
  writer = metrics.Writer(workdir)
  cleanup.callback(writer.close)
  saved = start
  profiler = profiling.Profiler(
    requested, workdir=workdir, start=start, compiled=train_step
  )
  cleanup.callback(profiler.close)
  pictures = router_picture.Pictures(
    workdir=workdir, writer=writer, every=requested.router_picture_every
  )
  parts, part = breakdown.Breakdown(), breakdown.Part
  log_time, log_step = time.time(), start
  pending = None  # the step in flight: its metrics are fetched one step late
  for step in range(start + 1, train.steps + 1):
    profiler.begin(step)
    with parts.of(part.DATA):
      rows = next(loader)
    with profiler.out_of_memory(step):
      with parts.of(part.TRANSFER):
        batch = put(rows)
      with parts.of(part.DISPATCH):
        state, values = train_step(state, batch)
      if pending is not None:
        with parts.of(part.DEVICE):
          check_finite(
            pending, step=step - 1, saved=saved, checkpointer=checkpointer
          )
    pending = values
    is_logged = step % train.log_every == 0 or step == train.steps
    if step == start + 1:
      jax.block_until_ready(values)
      logging.info(
        "first step %.1f s after the process started; peak memory %.0f MiB",
        time.time() - _PROCESS_START,
        resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024,
      )
      if not is_logged:  # it waited for the first batch
        log_time, log_step = time.time(), step
        parts.clear()
    if is_logged:
      with parts.of(part.DEVICE):
        check_finite(values, step=step, saved=saved, checkpointer=checkpointer)
      with parts.of(part.METRICS):
        fetched = jax.device_get(values)
        scalars = metrics.summarise(fetched)
      seconds = (time.time() - log_time) / (step - log_step)
      scalars |= parts.scalars(steps=step - log_step)
      scalars |= profiling.memory(train_step)
      log_time, log_step = time.time(), step
      scalars |= {
        "seconds_per_step": seconds,
        "tokens_per_second": scalars["tokens"] / seconds,
        "mfu": flops.mfu(config, seconds_per_step=seconds),
        "minutes_left": seconds * (train.steps - step) / 60,
      }
      if jax.process_index() == 0:
        with parts.of(part.METRICS):
          writer.write(step, scalars)
          metrics.log_line(step, steps=train.steps, scalars=scalars)
          pictures.add(step, fetched["sums"].load_KLE)

    # ------------------------------------------- checkpoint, stop, evaluate
    is_last = step == train.steps or stop.requested
    if is_last or step % train.checkpoint_every == 0:
      check_finite(values, step=step, saved=saved, checkpointer=checkpointer)
      with parts.of(part.CHECKPOINT):
        checkpointer.save(step, state=state, loader_state=loader.get_state())
      saved = step
    if train.evaluate_every and step % train.evaluate_every == 0:
      check_finite(values, step=step, saved=saved, checkpointer=checkpointer)
      start_evaluation = time.time()
      with parts.of(part.EVALUATION):
        evaluate(config, state=state, step=step, writer=writer)
      log_time += time.time() - start_evaluation
    profiler.end(step, results=values["loss"])
    if stop.requested:
      logging.info("stopping on SIGTERM after step %d, state saved", step)
      break


class Preemption:
  """Turns SIGTERM into a request to save and stop after the current step."""

  def __init__(self):
    self.requested = False
    signal.signal(signal.SIGTERM, self._request)

  def _request(self, *_) -> None:
    self.requested = True


def check_weights(config: Config, *, path: str) -> None:
  """Refuses weights of another model before anything is written."""
  import jax
  from flax import linen as nn

  from tml_jax.training import checkpoint
  from tml_jax.training import state as state_lib

  weights = checkpoint.Weights(path)
  model = state_lib.create_model(config)
  batch = state_lib.example_batch(config, batch_size=1)
  shapes = jax.eval_shape(
    lambda key: nn.meta.unbox(model.init(key, batch)), jax.random.key(0)
  )
  weights.check({"router": {}} | shapes)
  weights.close()


def check_finite(values, *, step: int, saved: int, checkpointer) -> None:
  """Stops the run when a loss or gradient is not finite.

  Exits with status 1; the state of this step is never saved.
  """
  loss, norm = float(values["loss"]), float(values["grad_norm"])
  if math.isfinite(loss) and math.isfinite(norm):
    return
  checkpointer.wait()  # the save of a good step may still be running
  last = (
    f"the last good checkpoint is step {saved} in {checkpointer.path}/{saved}"
    if saved
    else "no checkpoint had been saved"
  )
  logging.error(
    "step %d: loss %s, gradient norm %s; %s", step, loss, norm, last
  )
  sys.exit(1)


def check_held_out(config: Config) -> None:
  """Refuses what `evaluate` would refuse, before the first step."""
  from tml_jax.data import splits
  from tml_jax.evals import run

  run.scenarios(
    config,
    data_dir=data_flags.data_dir(),
    split=splits.Split.HELDOUT,
    count=run.QUICK_COUNT,
  )


def evaluate(config: Config, *, state, step: int, writer) -> None:
  """Held-out conversations with the current weights, into the metrics."""
  import jax

  from tml_jax.data import splits
  from tml_jax.evals import run
  from tml_jax.training import state as state_lib

  variables = jax.device_get(state.sampling_variables())
  report = run.evaluate(
    config,
    model=state_lib.create_sampler(config),
    variables=state_lib.unrolled(variables, config=config),
    data_dir=data_flags.data_dir(),
    split=splits.Split.HELDOUT,
    count=run.QUICK_COUNT,
  )
  writer.write(step, {f"eval/{k}": v for k, v in report.scalars.items()})


def main_and_cleanup(config: Config) -> None:
  """Bad data in the middle of a run must not lose the save under way."""
  with contextlib.ExitStack() as cleanup:
    main(config, cleanup=cleanup)


if __name__ == "__main__":
  config_flags.run(main_and_cleanup)
