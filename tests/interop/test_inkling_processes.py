"""One import by two `jax.distributed` processes of four devices each."""

import os
import re
import socket
import subprocess
import sys

import pytest

from tests import commands
from tests.interop import importing, test_inkling_commands
from tests.training import small
from tml_jax.interop import safetensors_files

torch = pytest.importorskip("torch")
pytest.importorskip("transformers")

# Nearly all bytes are those of experts: 8 of 3 x 1,024 x 64.
FIELDS = dict(num_layers=1, d_model=64, expert_d_ff=1024)
FLAGS = (
  *small.FLAGS,
  *(f"--config.model.{name}={value}" for name, value in FIELDS.items()),
)


def start(*arguments, count):
  """`python -m tml_jax.interop.inkling --import ARGUMENTS` on eight devices."""
  with socket.socket() as server:
    server.bind(("127.0.0.1", 0))
    address = f"127.0.0.1:{server.getsockname()[1]}"
  environment = os.environ | {
    "JAX_PLATFORMS": "cpu",
    "XLA_FLAGS": f"--xla_force_host_platform_device_count={8 // count}",
  }
  places = [
    (
      f"--coordinator_address={address}",
      f"--num_processes={count}",
      f"--process_id={index}",
    )
    for index in range(count)
  ]
  command = (sys.executable, *test_inkling_commands.INKLING, "--import")
  processes = [
    subprocess.Popen(
      [*command, *arguments, *(place if count > 1 else ())],
      cwd=commands.ROOT,
      env=environment,
      stdout=subprocess.PIPE,
      stderr=subprocess.PIPE,
      text=True,
    )
    for place in places
  ]
  try:
    return [
      (process.returncode, *output)
      for process in processes
      for output in [process.communicate(timeout=300)]
    ]
  finally:
    for process in processes:
      process.kill()


def bytes_read(log):
  return int(re.search(r"(\d+) bytes read of", log)[1])


@pytest.mark.slow
def test_each_process_reads_its_slices_and_one_checkpoint_is_written(tmp_path):
  source = tmp_path / "hf"
  test_inkling_commands.save_text_model(
    source, test_inkling_commands.tiny_model(**FIELDS)
  )
  mesh = ("--config.mesh.expert=8",)
  results = start(
    f"--src={source}", f"--workdir={tmp_path}/two", *FLAGS, *mesh, count=2
  )
  for status, _, log in results:
    assert status == 0, log[-3000:]
  assert "tensors read into" in results[0][1] and not results[1][1]
  ((status, _, log),) = start(
    f"--src={source}", f"--workdir={tmp_path}/one", *FLAGS, *mesh, count=1
  )
  assert status == 0, log[-3000:]
  importing.assert_equal(
    importing.variables_of(tmp_path / "two"),
    importing.variables_of(tmp_path / "one"),
  )

  # Four of eight experts each: half of their bytes; the rest both read.
  reader = safetensors_files.Reader(safetensors_files.Source(str(source)))
  sizes = {name: entry.nbytes for name, entry in reader.entries.items()}
  experts = sum(n for name, n in sizes.items() if ".mlp.experts." in name)
  rest = sum(sizes.values()) - experts
  headers = 100_000
  for _, _, each in results:
    assert 0 <= bytes_read(each) - experts / 2 - rest <= headers
  assert 0 <= bytes_read(log) - experts - rest <= headers
  assert not list(tmp_path.glob(".*partial"))


@pytest.mark.slow
def test_bad_input_of_several_processes_is_one_line_each(tmp_path):
  results = start(
    f"--src={tmp_path}/nowhere",
    f"--workdir={tmp_path}/new",
    *FLAGS,
    "--config.mesh.expert=8",
    count=2,
  )
  for status, out, log in results:
    lines = [x for x in log.splitlines() if x.startswith("error:")]
    assert status == 2 and not out, log
    assert len(lines) == 1 and "there is no such directory" in lines[0]
  assert not list(tmp_path.iterdir())
