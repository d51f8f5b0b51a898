"""One import by two `jax.distributed` processes of four devices each."""

import re

import pytest

from tests.helpers import importing, inkling_runs, processes, small_run
from tml_jax.interop.inkling import safetensors_files

torch = pytest.importorskip("torch")
pytest.importorskip("transformers")

# Nearly all bytes are those of experts: 8 of 3 x 4,096 x 64, and gate and up in
# pieces of 1 MiB, which are read one by one.
FIELDS = dict(num_layers=1, d_model=64, expert_d_ff=4096)
FLAGS = (
  *small_run.FLAGS,
  *(f"--config.model.{name}={value}" for name, value in FIELDS.items()),
)


def import_(*arguments, count):
  """Statuses and logs of an import on eight devices."""
  command = (*inkling_runs.INKLING, "--import", *arguments)
  run = processes.start(*command, count=count, devices=8 // count, cache="")
  return run.finish()


def bytes_read(log):
  return int(re.search(r"(\d+) bytes read of", log)[1])


@pytest.mark.slow
def test_each_process_reads_its_slices_and_one_checkpoint_is_written(tmp_path):
  source = tmp_path / "hf"
  inkling_runs.save_text_model(source, inkling_runs.tiny_model(**FIELDS))
  mesh = ("--config.mesh.expert=8",)
  results = import_(
    f"--src={source}", f"--workdir={tmp_path}/two", *FLAGS, *mesh, count=2
  )
  for status, log in results:
    assert status == 0, log[-3000:]
  ((status, log),) = import_(
    f"--src={source}", f"--workdir={tmp_path}/one", *FLAGS, *mesh, count=1
  )
  assert status == 0, log[-3000:]
  importing.assert_equal(
    importing.variables_of(tmp_path / "two"),
    importing.variables_of(tmp_path / "one"),
  )

  # Four of eight experts each: half of their bytes; the rest both read. Headers
  # come on top, and rows behind the text are not read.
  reader = safetensors_files.Reader(safetensors_files.Source(str(source)))
  sizes = {name: entry.nbytes for name, entry in reader.entries.items()}
  experts = sum(n for name, n in sizes.items() if ".mlp.experts." in name)
  rest = sum(sizes.values()) - experts
  little = 100_000
  for _, each in results:
    assert abs(bytes_read(each) - experts / 2 - rest) < little
  assert abs(bytes_read(log) - experts - rest) < little
  assert not list(tmp_path.glob(".*partial"))


@pytest.mark.slow
def test_bad_input_of_several_processes_is_one_line_each(tmp_path):
  results = import_(
    f"--src={tmp_path}/nowhere",
    f"--workdir={tmp_path}/new",
    *FLAGS,
    "--config.mesh.expert=8",
    count=2,
  )
  for status, log in results:
    lines = [x for x in log.splitlines() if x.startswith("error:")]
    assert status == 2, log
    assert len(lines) == 1 and "there is no such directory" in lines[0]
  assert not list(tmp_path.iterdir())
