"""Trains a vocoder: `python -m tml_jax.train_vocoder --workdir=DIR ...`.

For: one run from nothing or from its last checkpoint to its last step, with
`--config=experiments/vocoder.py:small` and the prepared data of the interaction
model. Not for: several devices; it takes minutes on one. A killed run is
restarted by the same command. Reads top to bottom; `vocoder/loss.py` has
the loss.
"""

import math
import signal
import sys
import time

from absl import logging

from tml_jax import errors
from tml_jax import workdir as workdir_lib
from tml_jax.config import flags as config_flags
from tml_jax.vocoder.config import VocoderConfig


def main(config: VocoderConfig) -> None:
  workdir, data_dir = config_flags.WORKDIR.value, config_flags.data_dir()
  train, data = config.train, config.data

  from tml_jax.data import splits
  from tml_jax.streams import clock
  from tml_jax.vocoder import clips as clips_lib

  clips = clips_lib.Clips(
    data.voices,
    data_dir=data_dir,
    split=splits.Split.TRAIN,
    share=data.heldout_share,
    seed=data.seed,
  )
  workdir_lib.create(workdir, config)
  logging.info("%.1f minutes of speech", clips.seconds / 60)

  # jax starts here: bad flags and directories have been refused by now.
  import jax

  from tml_jax.training import checkpoint, metrics
  from tml_jax.vocoder import loss as training

  # ------------------------------------------------------------------ state
  checkpoints = checkpoint.Checkpointer.to_train(
    workdir, keep=train.keep_checkpoints
  )
  state, start = training.create_state(config), checkpoints.latest_step() or 0
  if start:
    place = jax.sharding.SingleDeviceSharding(jax.devices()[0])
    abstract = jax.tree.map(
      lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=place),
      state,
    )
    state, saved = checkpoints.restore(abstract, step=start)
    if saved["identity"] != clips.identity:
      raise errors.UserError(
        f"--data_dir={data_dir} is not what {workdir} was trained on: give"
        " that, or another --workdir"
      )
    logging.info("resumed from step %d of %s", start, checkpoints.path)
  update = training.create(config)
  samples = training.PAST + data.windows * clock.TICKS.samples

  # --------------------------------------------------------------- the loop
  stop = []  # SIGTERM: save and end after this step
  signal.signal(signal.SIGTERM, lambda *_: stop.append(True))
  writer = metrics.Writer(workdir)
  log_time, log_step = time.time(), start
  for step in range(start + 1, train.steps + 1):
    batch = clips.batch(
      step, size=train.batch_size, samples=samples, gain_db=data.gain_db
    )
    state, values = update(state, batch)
    is_last = step == train.steps or bool(stop)
    is_saved = is_last or step % train.checkpoint_every == 0
    if is_saved or step % train.log_every == 0:
      scalars = {name: float(value) for name, value in values.items()}
      _check_finite(scalars, step=step, checkpoints=checkpoints)
      seconds = (time.time() - log_time) / (step - log_step)
      log_time, log_step = time.time(), step
      scalars |= {
        "seconds_per_step": seconds,
        "minutes_left": seconds * (train.steps - step) / 60,
      }
      writer.write(step, scalars)
      _log(step, steps=train.steps, scalars=scalars)
    if is_saved:
      checkpoints.save(
        step, state=state, loader_state={"identity": clips.identity}
      )
    if stop:
      logging.info("stopping on SIGTERM after step %d, state saved", step)
      break
  checkpoints.close()
  writer.close()


def _check_finite(scalars, *, step: int, checkpoints) -> None:
  """Ends the run, with status 1, when a loss or gradient is not finite."""
  if math.isfinite(scalars["loss"]) and math.isfinite(scalars["grad_norm"]):
    return
  checkpoints.wait()
  logging.error(
    "step %d: loss %s, gradient norm %s; the last good checkpoint is step %s",
    step,
    scalars["loss"],
    scalars["grad_norm"],
    checkpoints.latest_step(),
  )
  sys.exit(1)


def _log(step: int, *, steps: int, scalars: dict[str, float]) -> None:
  shown = [f"step {step}/{steps}", f"loss {scalars['loss']:.3f}"]
  for name in ("magnitude", "stft", "mel"):
    shown.append(f"{name} {scalars[f'loss/{name}']:.3f}")
  shown.append(f"{scalars['minutes_left']:.1f} min left")
  logging.info("  ".join(shown))


if __name__ == "__main__":
  config_flags.run(main, config_type=VocoderConfig)
