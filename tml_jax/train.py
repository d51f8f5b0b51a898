"""Training: `python -m tml_jax.train --config=FILE.py:NAME --workdir=DIR`.

For: one run from nothing or from its last checkpoint to its last step. Not
for: numbers of a finished run (`evaluate`). Reads top to bottom; two hops lead
to the gradient (`training/step.py`, then `training/losses.py`). `main` is the
one train loop: what differs between the interaction model (`Pretraining`,
below) and others (`train_vocoder`) is in the `Task` it is given. A killed run
is restarted by the same command. With several hosts every one runs it
(`parallel/processes.py` has the flags); they end together, too. Exit statuses
and what is done about faults: docs/reliability.md.
"""

import contextlib
import faulthandler
import functools
import resource
import signal
import sys
import time
from collections.abc import Callable, Sequence
from typing import Any

from absl import flags, logging

from tml_jax import errors, files, plugins
from tml_jax import lock as lock_lib
from tml_jax import workdir as workdir_lib
from tml_jax.config import Config
from tml_jax.config import flags as config_flags
from tml_jax.config import text as config_text
from tml_jax.parallel import processes as processes_lib
from tml_jax.training import failures as failures_lib
from tml_jax.training import local_directory, profile_flags, run_tokenizer
from tml_jax.training import task as task_lib

_PROCESS_START = time.monotonic()
_INIT_FROM = flags.DEFINE_string(
  "init_from",
  "",
  "Begin a new run with the weights of another: its workdir, or"
  " WORKDIR/checkpoints/STEP. A run that is resumed has its own.",
)
_LOCAL_CHECKPOINT_DIR = flags.DEFINE_string(
  "local_checkpoint_dir",
  "",
  "Directory on a disk of each host for train.local_checkpoint_every.",
)
_STEP_TIMEOUT = flags.DEFINE_integer(
  "step_timeout",
  1800,
  "Seconds in which a step of several processes must end, else all end.",
  lower_bound=1,
)

for _module in (processes_lib, profile_flags):
  flags.adopt_module_key_flags(_module)  # `--help` shows them, too


def main(
  task: task_lib.Task,
  *,
  processes: processes_lib.Processes,
  cleanup: contextlib.ExitStack,
  failures: failures_lib.Failures,
) -> errors.Status:
  """The whole run; what it opens is closed by `cleanup`, however it ends."""
  workdir, init_from = config_flags.WORKDIR.value, _INIT_FROM.value
  local_dir = _LOCAL_CHECKPOINT_DIR.value
  config, evaluation = task.config, task.evaluation
  train = config.train
  processes.check_same(facts(config))
  with processes.together():
    begun = check(task, processes=processes)
    requested = profile_flags.requested(steps=train.steps)
  with processes.waiting():  # a host reads its share of the checksums
    if init_from and not begun and not workdir_lib.has_checkpoints(workdir):
      check_weights(task, path=init_from, processes=processes)
  with processes.together():  # none writes before all have been checked
    if processes.is_first:
      lock = lock_lib.Lock(workdir, flag="--workdir", does="trains")
      lock.take()
      cleanup.callback(lock.release)
      workdir_lib.create(
        workdir,
        config,
        is_begun=begun,
        overrides=config_flags.overrides(),
      )
  failures.open(workdir, processes=processes)
  faulthandler.register(signal.SIGUSR1, all_threads=True)
  # jax starts here: bad flags and directories have been refused by now.
  import jax

  from tml_jax.parallel import hosts
  from tml_jax.parallel import mesh as mesh_lib
  from tml_jax.training import (
    breakdown,
    checkpoint,
    flops,
    goodput,
    metrics,
    optim,
    profiling,
    router_picture,
    tiers,
  )
  from tml_jax.training import state as state_lib

  clock = goodput.Goodput(
    workdir, process_start=_PROCESS_START, writes=processes.is_first
  )
  cleanup.callback(clock.write)
  mesh = mesh_lib.create(config.mesh)

  # ---------------------------------------------------------------- data
  batch_sharding = mesh_lib.batch_sharding(
    mesh, rules=config.mesh.axis_rules, batch_size=train.microbatch_size
  )
  rows = hosts.local_rows(batch_sharding, size=train.global_batch_size)
  with processes.together():
    if processes.count > 1:
      workdir_lib.check_shared(workdir, config)
    if evaluation is not None and processes.is_first:
      evaluation.check()
    data = task.data(rows=rows)
  cleanup.callback(data.close)
  processes.check_same({"the data": data.identity})

  # ------------------------------------------------------ state on the mesh
  program = task.program(mesh=mesh)
  abstract, objective = program.abstract, program.objective
  with processes.together():
    if evaluation is not None and processes.count > 1:
      hosts.check_fits(
        abstract.variables,
        what=f"train.evaluate_every = {evaluation.every}",
        fix="set it to 0",
      )
  checkpoints = tiers.Tiers(
    train, workdir=workdir, local_dir=local_dir, processes=processes
  )
  cleanup.callback(checkpoints.close)  # waits for the save under way
  resumed, start = checkpoints.resume(abstract.state), 0
  if resumed is not None:
    start, state = resumed.step, resumed.state
    data.set_state(resumed.loader_state)
    logging.info("resumed from step %d of %s", start, resumed.path)
  elif init_from:
    with processes.waiting():  # the checksums again
      weights = checkpoint.Weights(
        init_from, index=processes.index, count=processes.count
      )
    variables = weights.restore(abstract.variables)
    state = state_lib.from_weights(abstract, variables=variables)
    weights.close()
    logging.info("weights of step %d of %s", weights.step, init_from)
  else:
    state = state_lib.create(abstract, seed=train.seed)
  clock.resumed(start)
  if processes.is_first:
    task.keep(workdir)
  check_finite = failures_lib.FiniteOnly(
    failures, checkpoints, writes=processes.is_first
  )
  step = start
  failures.watch(lambda: step)
  if processes.is_first:
    writer = metrics.Writer(workdir)
    cleanup.callback(writer.close)

  def evaluate() -> None:
    """Writes the panel of the state after `step`; all processes come."""
    with clock.during(goodput.Category.EVALUATION), processes.waiting():
      variables = hosts.gather(state.sampling_variables())
      if processes.is_first:
        writer.write(step, evaluation.scalars(variables))

  if evaluation is not None and start and start % evaluation.every == 0:
    done = metrics.is_evaluated(workdir, step=start)
    if processes.all_of(str(done))[0] == str(False):
      logging.info(
        "the evaluation after step %d was cut: it is made now", start
      )
      evaluate()
  if start >= train.steps:
    logging.info(
      "nothing to do: train.steps = %d; give more to go on", train.steps
    )
    return errors.Status.DONE

  # -------------------------------------------------------------- compile
  logging.info("compiling the step: minutes, on few or busy cores")
  compile_start = time.monotonic()
  with clock.during(goodput.Category.COMPILE):
    train_step = program.compile(program.lower())
  (peak, peak_source), step_flops = flops.device_peak(), task.step_flops()
  logging.info(
    "compiled in %.1f s; %.1f GFLOP a step; peak %.0f GFLOP/s a device (%s)",
    time.monotonic() - compile_start,
    step_flops / 1e9,
    peak / 1e9,
    peak_source,
  )

  # ------------------------------------------------------------- the loop
  stop = Preemption(processes)
  if processes.is_first:
    pictures = router_picture.Pictures(
      workdir=workdir, writer=writer, every=requested.router_picture_every
    )
  profiler = profiling.Profiler(
    requested, workdir=workdir, start=start, compiled=train_step
  )
  cleanup.callback(profiler.close)
  saved = start
  with processes.waiting():
    pass  # the others may still compile
  processes.watch(
    step_timeout=_STEP_TIMEOUT.value,
    where=lambda: f"in step {step}; the last save began after step {saved}",
  )
  clock.enter(goodput.Category.STEP)
  parts, part = breakdown.Breakdown(clock), breakdown.Part
  log_time, log_step = time.monotonic(), start
  pending = None  # the step in flight: its metrics are fetched one step late
  for step in range(start + 1, train.steps + 1):
    profiler.begin(step)
    with parts.of(part.DATA):
      for _ in range(train.skip_batches.count(step)):
        next(data)
        logging.info("the batch of step %d is skipped", step)
      batch = next(data)
    with profiler.out_of_memory(step):
      with parts.of(part.TRANSFER):
        batch = hosts.put(
          batch,
          rows=rows,
          sharding=batch_sharding,
          size=train.global_batch_size,
        )
      with parts.of(part.DISPATCH):
        state, values = train_step(state, batch)
      if pending is not None:
        with parts.of(part.DEVICE):
          check_finite(pending, step=step - 1, saved=saved)
        processes.progress()
    pending = values
    is_logged = step % train.log_every == 0 or step == train.steps
    if step == start + 1:
      jax.block_until_ready(values)
      logging.info(
        "first step %.1f s after the process started; peak memory %.0f MiB",
        time.monotonic() - _PROCESS_START,
        resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024,
      )
      if not is_logged:  # it waited for the first batch
        log_time, log_step = time.monotonic(), step
        parts.clear()
    if is_logged:
      with parts.of(part.DEVICE):
        check_finite(values, step=step, saved=saved)
      with parts.of(part.METRICS):
        sums = jax.device_get(values["sums"])
        scalars = {name: float(values[name]) for name in ("loss", "grad_norm")}
        scalars |= objective.scalars(sums)
      seconds = max(time.monotonic() - log_time, 1e-9) / (step - log_step)
      scalars |= parts.scalars(steps=step - log_step)
      log_time, log_step = time.monotonic(), step
      scalars |= clock.scalars() | profiler.memory()
      scalars |= optim.rates(train.optim, step=step, steps=train.steps)
      scalars |= {
        "seconds_per_step": seconds,
        "mfu": flops.mfu(step_flops, seconds_per_step=seconds),
        "minutes_left": seconds * (train.steps - step) / 60,
      }
      for name in objective.counted:
        scalars[f"{name}_per_second"] = scalars[name] / seconds
      if processes.is_first:
        with parts.of(part.METRICS):
          writer.write(step, scalars)
          metrics.log_line(
            step, steps=train.steps, scalars=scalars, objective=objective
          )
          pictures.add(step, objective.load_KLE(sums))
      clock.write()

    # ------------------------------------------- checkpoint, stop, evaluate
    stopping = stop.requested(step)
    tier = checkpoints.due(step, is_last=step == train.steps or stopping)
    if tier != tiers.Tier.NONE:
      check_finite(values, step=step, saved=saved)
      with parts.of(part.CHECKPOINT):
        checkpoints.save(
          step, tier=tier, state=state, loader_state=data.get_state()
        )
      clock.saved(step)
      saved = step
    if evaluation is not None and step % evaluation.every == 0:
      check_finite(values, step=step, saved=saved)
      start_evaluation = time.monotonic()
      with parts.of(part.EVALUATION):
        evaluate()
      log_time += time.monotonic() - start_evaluation
    profiler.end(step, results=values["loss"])
    if stopping:
      logging.info("stopping on SIGTERM after step %d, state saved", step)
      return errors.Status.STOPPED
  return errors.Status.DONE


class Preemption:
  """Turns SIGTERM into a request to save and stop after a step.

  Of several processes one that gets it is enough: jax tells the others, and
  all stop after the same step.
  """

  def __init__(self, processes: processes_lib.Processes):
    self._is_alone = processes.count == 1
    self._requested = False
    if self._is_alone:
      signal.signal(signal.SIGTERM, self._request)

  def requested(self, step: int) -> bool:
    """Whether to stop after `step`; to be asked after every step, once."""
    if self._is_alone:
      return self._requested
    from jax.experimental import multihost_utils

    return multihost_utils.reached_preemption_sync_point(step)

  def _request(self, *_) -> None:
    self._requested = True


def facts(config: Any) -> dict[str, object]:
  """What must be the same in all processes of a run."""
  return {
    **config_text.flatten(config),
    **workdir_lib.versions(),
    "the code": workdir_lib.git_hash(),
    "--plugins": plugins.versions(),
    "--workdir": config_flags.WORKDIR.value,
    "--init_from": _INIT_FROM.value,
  }


def check(task: task_lib.Task, *, processes: processes_lib.Processes) -> bool:
  """Refuses at once what cannot be trained, before anything is written.

  Returns:
    Whether the run has local checkpoints on this host.
  """
  workdir, local_dir = config_flags.WORKDIR.value, _LOCAL_CHECKPOINT_DIR.value
  workdir_lib.check_given(workdir)
  if processes.count > 1:
    check_places(task)
  local_directory.check(task.config.train, directory=local_dir)
  task.check()
  return local_directory.holds(local_dir, workdir=workdir)


def check_places(task: task_lib.Task) -> None:
  """Refuses devices and processes that the mesh or the data do not divide."""
  from tml_jax.parallel import hosts
  from tml_jax.parallel import mesh as mesh_lib

  config = task.config
  sharding = mesh_lib.batch_sharding(
    mesh_lib.create(config.mesh),
    rules=config.mesh.axis_rules,
    batch_size=config.train.microbatch_size,
  )
  task.check_rows(
    hosts.local_rows(sharding, size=config.train.global_batch_size)
  )


def check_weights(
  task: task_lib.Task, *, path: str, processes: processes_lib.Processes
) -> None:
  """Refuses weights of another model before anything is written."""
  from tml_jax.parallel import mesh as mesh_lib
  from tml_jax.training import checkpoint

  weights = checkpoint.Weights(
    path, index=processes.index, count=processes.count
  )
  program = task.program(mesh=mesh_lib.create(task.config.mesh))
  weights.check(program.abstract.variables, config=task.config)
  weights.close()


class Pretraining:
  """The task of the interaction model; `Task` says what each part is for."""

  def __init__(self, config: Config):
    self.config, self._data_dir = config, config_flags.data_dir()
    workdir = config_flags.WORKDIR.value
    self.tokenizer_file = run_tokenizer.to_train(
      workdir,
      is_begun=bool(workdir)
      and (
        workdir_lib.has_checkpoints(workdir)
        or local_directory.holds(_LOCAL_CHECKPOINT_DIR.value, workdir=workdir)
      ),
      init_from=_INIT_FROM.value,
      given=config_flags.TOKENIZER.value,
      data_dir=self._data_dir,
    )
    self.evaluation = None
    if config.train.evaluate_every:
      self.evaluation = HeldOut(config, tokenizer_file=self.tokenizer_file)

  def check(self) -> None:
    from tml_jax.streams import tokenizer

    tokenizer.load(self.tokenizer_file, config=self.config.streams)

  def keep(self, workdir: str) -> None:
    content = files.path(self.tokenizer_file).read_bytes()
    run_tokenizer.keep(content, run=workdir)

  def check_rows(self, rows: Sequence[int]) -> None:
    from tml_jax.data import loader

    loader.shards_of(rows, config=self.config)

  def data(self, *, rows: Sequence[int]) -> task_lib.Data:
    from tml_jax.data import loader, splits

    return loader.Loader(
      self.config,
      data_dir=self._data_dir,
      split=splits.Split.TRAIN,
      rows=rows,
      tokenizer_file=self.tokenizer_file,
    )

  def program(self, *, mesh):
    from tml_jax.training import program

    return program.create(self.config, mesh=mesh)

  def step_flops(self) -> float:
    from tml_jax.training import flops

    return flops.step_flops(self.config)


class HeldOut:
  """The panel of a few held-out conversations, inside training."""

  def __init__(self, config: Config, *, tokenizer_file: str):
    self._tokenizer = tokenizer_file
    self.every = config.train.evaluate_every
    self._config, self._data_dir = config, config_flags.data_dir()

  def check(self) -> None:
    from tml_jax.evals import suites

    suite = suites.quick(self._config, data_dir=self._data_dir)
    suites.check_annotations(suite.items())

  def scalars(self, variables) -> dict[str, float]:
    from tml_jax.evals import run, suites
    from tml_jax.streams import tokenizer
    from tml_jax.training import state as state_lib

    config = self._config
    report = run.evaluate(
      suites.quick(config, data_dir=self._data_dir),
      config=config,
      model=state_lib.create_sampler(config),
      variables=state_lib.unrolled(variables, config=config),
      tokenizer=tokenizer.load(self._tokenizer, config=config.streams),
    )
    return {f"eval/{k}": v for k, v in report.scalars().items()}


def run(config: Any, *, task: Callable[[Any], task_lib.Task]) -> None:
  """Trains what `task` makes of the config, in all processes of the run."""
  processes, failures = processes_lib.start(), failures_lib.Failures()
  # Bad data in the middle of a run must not lose the save under way.
  with (
    contextlib.ExitStack() as cleanup,
    processes.ending_all(explain=failures.explain),
  ):
    with processes.waiting():  # a host may copy its data to --data_cache
      made = task(config)
    status = main(made, processes=processes, cleanup=cleanup, failures=failures)
  sys.exit(status)


if __name__ == "__main__":
  config_flags.run(functools.partial(run, task=Pretraining))
