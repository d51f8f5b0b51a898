"""What `launch.preflight` looks at on one host.

For: one function for each check; bad news is an `errors.UserError` with the
value and the fix, good news are JSON values. Not for: comparing hosts
(`preflight.Report`). jax is imported where devices are asked for: hosts that
differ in it must still be able to say so.
"""

import contextlib
import importlib.metadata
import math
import os
import pathlib
import shutil
import time
import uuid
from typing import Any

from tml_jax import buckets, errors, files
from tml_jax import workdir as workdir_lib
from tml_jax.config import Config
from tml_jax.data import corpus as corpus_lib
from tml_jax.parallel import chips
from tml_jax.streams import tokenizer

_SEEN_WITHIN_SECONDS = 15.0  # a file of another host, through its cache
_REPEATS = 3


def versions() -> dict[str, str]:
  """Of everything that all hosts must agree on, and the commit."""
  result = workdir_lib.versions()
  for package in ("libtpu", "tml_jax"):
    try:
      result[package] = importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
      result[package] = "not installed"
  return result | {"git": workdir_lib.git_hash()}


def clock() -> float:
  """Seconds since 1970."""
  return time.time()


class Probe:
  """Files in the workdir that come and go.

  Entered by all processes; on leaving, what was made is removed again.
  """

  def __init__(self, path: str, *, processes: Any):
    self._directory = files.path(path)
    self._processes = processes
    # Known to all: a directory that is not shared may hold an old one.
    self._name = processes.all_of(uuid.uuid4().hex)[0]
    self._made: list[pathlib.Path] = []

  def __enter__(self) -> "Probe":
    return self

  def __exit__(self, *_) -> None:
    self._processes.all_of("")
    try:
      self._token.unlink(missing_ok=True)
    except Exception as error:
      if not files.is_fault(error):
        raise
    self._processes.all_of("")
    for path in reversed(self._made):  # where nothing else was put in
      with contextlib.suppress(OSError):
        path.rmdir()

  @property
  def _token(self) -> pathlib.Path:
    return self._directory / f".preflight-{self._name}"

  def write_read_delete(self) -> float:
    """Seconds for a file of this process, in a directory that is renamed.

    In a bucket, which renames nothing, for an object.
    """
    start = time.monotonic()
    if buckets.is_url(self._directory):
      files.check(self._directory, what=f"--workdir={self._directory}")
      return time.monotonic() - start
    name = f".preflight-{self._name}-{self._processes.index}"
    written, finished = (self._directory / name / x for x in ("tmp", "done"))
    content = os.urandom(1 << 16)
    try:
      for path in [*reversed(self._directory.parents), self._directory]:
        if not path.exists():
          path.mkdir(exist_ok=True)
          self._made.append(path)
      written.mkdir(parents=True)
      with open(written / "file", "wb") as stream:
        stream.write(content)
        stream.flush()
        os.fsync(stream.fileno())
      _rename(written, finished)
      same = (finished / "file").read_bytes() == content
      shutil.rmtree(self._directory / name)
    except OSError as error:
      shutil.rmtree(self._directory / name, ignore_errors=True)
      raise errors.UserError(
        f"--workdir={self._directory} cannot be written and read"
        f" ({error.strerror or error}): mend its permissions or mount, or name"
        " another directory"
      ) from error
    if not same:
      raise errors.UserError(
        f"--workdir={self._directory} gives back other bytes than were written:"
        " do not use this disk"
      )
    return time.monotonic() - start

  def leave_token(self) -> None:
    if self._processes.is_first:
      files.write_atomically(self._token, content=self._name)

  def find_token(self) -> None:
    """Whether what process 0 wrote is here."""
    end = time.monotonic() + _SEEN_WITHIN_SECONDS
    while not self._token.exists():
      if time.monotonic() > end:
        raise errors.UserError(
          f"--workdir={self._directory} is not the directory that process 0"
          " writes to: checkpoints of all hosts must come together in one;"
          " mount a shared one (docs/run_on_tpu.md)"
        )
      time.sleep(0.2)


def _rename(old: pathlib.Path, new: pathlib.Path) -> None:
  """Renames a directory that is not empty, as a finished checkpoint is."""
  try:
    os.rename(old, new)
  except OSError as error:
    raise OSError(
      error.errno,
      f"a directory there cannot be renamed, which finishes a checkpoint:"
      f" {error.strerror}; a bucket needs a hierarchical namespace",
    ) from error


def resume(path: str, config: Config) -> str:
  """What `train` would do with this workdir."""
  if not workdir_lib.has_checkpoints(path):
    return "a new run"
  steps = workdir_lib.checkpoint_steps(path)
  workdir_lib.check_resume(
    workdir_lib.load_config(path), new=config, source=f"--workdir={path}"
  )
  return f"from step {max(steps)}"


def read_data(
  config: Config, data_dir: str, processes: Any, *, tokenizer_file: str
) -> dict[str, Any]:
  """Reads a record of every corpus; digests of all, and the time."""
  from tml_jax.data import mixture  # Grain imports jax

  start = time.monotonic()
  mixture.check(config, data_dir=data_dir, tokenizer_file=tokenizer_file)
  root = pathlib.Path(data_dir)
  result = {"tokenizer": tokenizer.digest(tokenizer_file)}
  for folder in corpora(config):
    if (root / folder).is_dir():
      corpus = corpus_lib.RecordSource(root / folder)
      corpus[processes.index % len(corpus)]  # its checksum is compared
      result[folder] = corpus.index.digest
  return result | {"seconds": time.monotonic() - start}


def corpora(config: Config) -> list[str]:
  """Folders of --data_dir that the config reads; families have none."""
  from tml_jax.data import mixture  # Grain imports jax

  voices = [entry.replace(":", "-", 1) for entry in config.data.voices]
  return [*voices, *mixture.weights(config)]


def local_devices() -> dict[str, Any]:
  """What this host has.

  Raises:
    errors.UserError: none can be opened; the others wait inside jax for them.
  """
  import jax

  try:
    kinds = sorted({device.device_kind for device in jax.local_devices()})
  except RuntimeError as error:
    raise errors.UserError(
      f"the devices cannot be opened ({' '.join(str(error).split())[:300]}):"
      " end the process that holds them (pgrep -f tml_jax), or replace the host"
    ) from error
  return {
    "kind": ", ".join(kinds),
    "of a host": jax.local_device_count(),
    "together": jax.device_count(),
  }


def mesh_sizes(config: Config) -> dict[str, int]:
  """Axes of the mesh over all devices.

  Raises:
    errors.UserError: it needs another number, or does not lie on the torus.
  """
  from tml_jax.parallel import mesh as mesh_lib

  return dict(mesh_lib.create(config.mesh).shape)


def local_rows(config: Config) -> int:
  """How many sequences of the global batch this process makes.

  Raises:
    errors.UserError: the batch does not divide, or the rows of the devices
      here are no whole logical shards.
  """
  from tml_jax.data import loader
  from tml_jax.parallel import hosts
  from tml_jax.parallel import mesh as mesh_lib

  size = config.train.global_batch_size
  sharding = mesh_lib.batch_sharding(
    mesh_lib.create(config.mesh),
    rules=config.mesh.axis_rules,
    batch_size=config.train.microbatch_size,
  )
  rows = hosts.local_rows(sharding, size=size)
  loader.shards_of(rows, config=config)
  return len(rows)


def room(config: Config, workdir: str) -> dict[str, float]:
  """GiB of this host's part of the state, of free memory, of free disk.

  A bucket has room without end.

  Raises:
    errors.UserError: a save, which copies the state to the host, has no room
      in memory, or the checkpoints that are kept and one more have none on
      the disk; or a dim does not divide.
  """
  import jax

  from tml_jax.parallel import mesh as mesh_lib
  from tml_jax.training import program as program_lib

  program = program_lib.create(config, mesh=mesh_lib.create(config.mesh))
  of_device = sum(
    leaf.dtype.itemsize * math.prod(leaf.sharding.shard_shape(leaf.shape))
    for leaf in jax.tree.leaves(program.abstract.state)
  )
  state = of_device * jax.local_device_count() / chips.GIB
  memory = _available_memory() / chips.GIB
  if memory < state:
    raise errors.UserError(
      f"{memory:.1f} GiB of host memory are free and a save copies"
      f" {state:.1f} GiB of state to it: end what else runs there, or shard"
      " over more hosts"
    )
  found = {"state": state, "memory": memory}
  if buckets.is_url(workdir):
    return found | {"disk": math.inf}
  directory = pathlib.Path(workdir).absolute()
  while not directory.exists():
    directory = directory.parent
  disk = shutil.disk_usage(directory).free / chips.GIB
  kept = config.train.keep_checkpoints + 1
  if disk < kept * state:
    raise errors.UserError(
      f"--workdir={workdir} has {disk:.1f} GiB free, and {kept} checkpoints of"
      f" {state:.1f} GiB of this host's state need {kept * state:.1f}: make"
      " room, or set train.keep_checkpoints lower"
    )
  return found | {"disk": disk}


def _available_memory() -> int:
  """Bytes, as Linux estimates them."""
  with open("/proc/meminfo", encoding="ascii") as file:
    for line in file:
      if line.startswith("MemAvailable:"):
        return int(line.split()[1]) * 1024
  raise errors.UserError("/proc/meminfo has no MemAvailable: use Linux >= 3.14")


def add(config: Config, axis: str) -> dict[str, float]:
  """Sums an array over one mesh axis; seconds of the fastest of a few.

  Raises:
    errors.UserError: a wrong sum on a device of this host.
  """
  import jax
  import numpy as np
  from jax.sharding import PartitionSpec

  from tml_jax.parallel import mesh as mesh_lib

  mesh = mesh_lib.create(config.mesh)
  # 16 MiB a device: large enough for the bandwidth of a link to show. CPUs,
  # where several devices share a core, get less.
  width = 1 << (18 if mesh.devices.flat[0].platform == "cpu" else 22)
  spec = PartitionSpec(mesh_lib.AXES)
  values_D = np.arange(1, mesh.size + 1, dtype=np.float32)
  x_DW = jax.make_array_from_callback(
    (mesh.size, width),
    jax.sharding.NamedSharding(mesh, spec),
    lambda index: np.repeat(values_D[index[0], None], width, axis=1),
  )
  program = jax.jit(
    jax.shard_map(
      lambda x_DW: jax.lax.psum(x_DW, axis),
      mesh=mesh,
      in_specs=spec,
      out_specs=PartitionSpec(
        tuple(name for name in mesh_lib.AXES if name != axis)
      ),
    )
  )
  seconds = math.inf
  jax.block_until_ready(program(x_DW))
  for _ in range(_REPEATS):
    start = time.monotonic()
    sums_DW = jax.block_until_ready(program(x_DW))
    seconds = min(seconds, time.monotonic() - start)
  place = mesh_lib.AXES.index(axis)
  want_D = values_D.reshape(mesh.devices.shape).sum(axis=place).reshape(-1)
  for shard in sums_DW.addressable_shards:
    got = np.asarray(shard.data)
    want = want_D[shard.index[0]]
    if not (got == want[:, None]).all():
      raise errors.UserError(
        f"the sum over mesh axis {axis} on device {shard.device} is"
        f" {got.flat[0]} and must be {want[0]}: a link or chip is broken,"
        " replace the slice"
      )
  return {"seconds": seconds, "mib": width * 4 / 2**20}
