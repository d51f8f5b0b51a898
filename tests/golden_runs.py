"""Losses and sessions that are checked in; `python -m tests.golden_runs`.

For: seeing that a refactor changes no bit, and what a meant change does to the
numbers. Not for: texts of configs and shardings (`goldens`). Start at `RUNS`.

The first lines of a golden name the machine and the versions it was written
on. There everything is equal to the last bit; elsewhere losses are near, as
`TOLERANCES` says (`xla_cpu_max_isa=SSE4_2` was the other machine they were
measured on).

  python -m tests.golden_runs [NAME ...]     rewrites them; read the diff
"""

import dataclasses
import hashlib
import importlib.metadata
import os
import pathlib
import platform
import sys
import tempfile
from collections.abc import Iterator

import numpy as np

from experiments import interaction as sizes
from tests.helpers import devices  # noqa: F401  before jax
from tml_jax import prepare
from tml_jax.config import Config, Dtype, Optimizer

ROOT = pathlib.Path(__file__).parent
STEPS = 20
WINDOWS = 50
SESSION = "session"
# Relative, of loss and gradient norm, on machines other than the golden's.
TOLERANCES = {Dtype.FLOAT32: 2e-2, Dtype.BFLOAT16: 1e-1}


def _one_device(dtype: Dtype, optimizer: Optimizer) -> Config:
  """`tiny_procedural` as it is."""
  config = sizes.get_config("tiny_procedural")
  return _with(config, dtype=dtype, optimizer=optimizer)


def _mesh(dtype: Dtype, optimizer: Optimizer) -> Config:
  """A smaller one on eight devices, two microbatches a step."""
  config = sizes.get_config("tiny_procedural")
  lengths = dict(seq_len=256, max_audio=224, max_speak=24, max_targets=96)
  return _with(
    dataclasses.replace(
      config,
      streams=dataclasses.replace(config.streams, **lengths),
      model=dataclasses.replace(
        config.model,
        d_model=64,
        num_layers=2,
        attention_pattern="LG",
        expert_d_ff=64,
        flow=dataclasses.replace(config.model.flow, width=64, depth=1),
      ),
      mesh=dataclasses.replace(config.mesh, data=2, fsdp=2, expert=2),
      train=dataclasses.replace(
        config.train, global_batch_size=16, accumulation_steps=2
      ),
    ),
    dtype=dtype,
    optimizer=optimizer,
  )


def _with(config: Config, *, dtype: Dtype, optimizer: Optimizer) -> Config:
  train = config.train
  return dataclasses.replace(
    config,
    train=dataclasses.replace(
      train,
      dtype=dtype,
      optim=dataclasses.replace(train.optim, name=optimizer),
    ),
  )


RUNS = {
  f"{name}_{dtype}_{optimizer}": make(dtype, optimizer)
  for name, make in (("tiny_procedural", _one_device), ("mesh_2_2_2", _mesh))
  for dtype in Dtype
  for optimizer in Optimizer
}


@dataclasses.dataclass(frozen=True)
class Golden:
  """A checked-in run.

  Attributes:
    machine: it was written on.
    lines: one a step or window.
  """

  machine: str
  lines: tuple[str, ...]

  def to_text(self) -> str:
    return f"# {self.machine}\n" + "\n".join(self.lines) + "\n"

  @classmethod
  def load(cls, name: str) -> "Golden":
    machine, *lines = path(name).read_text(encoding="utf-8").splitlines()
    return cls(machine.removeprefix("# "), tuple(lines))


def path(name: str) -> pathlib.Path:
  return ROOT / "golden" / f"run_{name}.txt"


def machine() -> str:
  """What decides the last bit of a sum: processor, cores and versions."""
  processor = platform.processor() or platform.machine()
  try:
    text = pathlib.Path("/proc/cpuinfo").read_text(encoding="utf-8")
    fields = dict(
      (part.strip() for part in line.split(":", 1))
      for line in text.split("\n\n")[0].splitlines()
      if ":" in line
    )
    # Processors of one name may have other vector units.
    name = fields.get("model name", processor)
    family, model = fields.get("cpu family", "-"), fields.get("model", "-")
    processor = f"{name} (family {family}, model {model})"
  except OSError:
    pass
  packages = ("jax", "jaxlib", "flax", "optax", "numpy", "scipy")
  versions = ", ".join(f"{p} {importlib.metadata.version(p)}" for p in packages)
  flags = os.environ["XLA_FLAGS"].strip()
  return f"{processor}; {os.cpu_count()} cores; {flags}; {versions}"


def prepared(directory: str) -> str:
  """Data of the procedural voices, made in `directory`."""
  config = sizes.get_config("tiny_procedural")
  prepare.prepare(config, data_dir=directory, sounds_root="/", processes=2)
  return directory


def losses(config: Config, *, data_dir: str) -> Golden:
  """Loss and gradient norm of the first steps of a run."""
  lines = [
    f"{number} loss {loss!r} grad_norm {norm!r}"
    for number, (loss, norm) in enumerate(
      trained(config, data_dir=data_dir, steps=STEPS), start=1
    )
  ]
  return Golden(machine(), tuple(lines))


def trained(
  config: Config, *, data_dir: str, steps: int
) -> Iterator[tuple[float, float]]:
  """Loss and gradient norm of each step from new weights."""
  import jax

  from tml_jax.data import loader as loader_lib
  from tml_jax.data.splits import Split
  from tml_jax.parallel import hosts
  from tml_jax.parallel import mesh as mesh_lib
  from tml_jax.training import program as program_lib
  from tml_jax.training import state as state_lib

  size = config.mesh.data * config.mesh.fsdp * config.mesh.expert
  mesh = mesh_lib.create(config.mesh, devices=jax.devices()[:size])
  program = program_lib.create(config, mesh=mesh)
  state = state_lib.create(program.abstract, seed=config.train.seed)
  step = program.compile(program.lower())
  rows = range(config.train.global_batch_size)
  loader = loader_lib.Loader(config, data_dir=data_dir, split=Split.TRAIN)
  for _ in range(steps):
    batch = hosts.put(
      next(loader),
      rows=rows,
      sharding=program.batch_sharding,
      size=config.train.global_batch_size,
    )
    state, values = step(state, batch)
    yield float(values["loss"]), float(values["grad_norm"])
  loader.close()


def session() -> Golden:
  """Two sessions of a pool: tokens of each window, and its mel."""
  import jax
  from flax import linen as nn

  from tml_jax.live import pool as pool_lib
  from tml_jax.live import program as program_lib
  from tml_jax.streams import clock
  from tml_jax.streams import frame as frame_lib
  from tml_jax.training import state as state_lib

  config = sizes.get_config("tiny_procedural")
  config = dataclasses.replace(
    config, sample=dataclasses.replace(config.sample, temperature=0.8)
  )
  model = state_lib.create_sampler(config)
  packed = state_lib.example_batch(config, batch_size=1).packed
  variables = nn.unbox(jax.jit(model.init)(jax.random.key(0), packed))
  leaves, tree = jax.tree.flatten(variables)
  random = np.random.default_rng(0)
  # Every leaf: what starts at zero would hide mistakes.
  variables = jax.tree.unflatten(
    tree,
    [x + 0.1 * random.normal(size=x.shape).astype(x.dtype) for x in leaves],
  )
  program = program_lib.on_device(
    config, model=model, sessions=2, text_pieces=900
  )
  pool = pool_lib.SessionPool(program, variables=variables)
  sessions = [pool.join(seed=seed) for seed in range(2)]
  grid, streams = clock.of(config.streams), config.streams
  shape = (streams.video_height, streams.video_width, 3)
  lines = []
  for window in range(WINDOWS):
    inputs = {}
    for each in sessions:
      images = []
      if window % 7 == 3:
        images = list(random.integers(256, size=(2, *shape), dtype=np.uint8))
      if window % 11 == 5:
        each.type(
          frame_lib.Control.USER_TEXT, random.integers(900, size=9).tolist()
        )
      loudness = 10 ** random.uniform(-4, -1)
      samples = loudness * random.normal(size=grid.samples)
      inputs[each] = each.perceive(samples.astype(np.float32), images=images)
    frames = pool.tick(inputs).frames
    for index, each in enumerate(sessions):
      frame = frames[each]
      layout = frame_lib.layout(frame, config=streams)
      tokens = layout.tokens[layout.num_inputs :]
      mel = "quiet"
      if frame.speak:
        digest = hashlib.sha256(frame.target_mel.tobytes()).hexdigest()
        mel = f"{float(frame.target_mel.mean()):.4f} {digest[:16]}"
      text = " ".join(map(str, tokens))
      lines.append(f"{window} session {index} tokens {text} mel {mel}")
  return Golden(machine(), tuple(lines))


def main() -> None:
  names = sys.argv[1:] or [SESSION, *RUNS]
  with tempfile.TemporaryDirectory() as directory:
    data_dir = prepared(directory)
    for name in names:
      golden = (
        session() if name == SESSION else losses(RUNS[name], data_dir=data_dir)
      )
      path(name).write_text(golden.to_text(), encoding="utf-8")
      print(path(name), golden.lines[-1])


if __name__ == "__main__":
  main()
