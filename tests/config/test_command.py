"""The process of a command: its help, its environment, its end."""

import errno
import os
import subprocess
import sys
import warnings

import pytest

from tests.helpers import commands
from tml_jax import errors
from tml_jax.config import command

MODULES = [
  f"{folder}.{path.stem}"
  for folder in ("tml_jax", "launch")
  for path in sorted((commands.ROOT / folder).glob("*.py"))
  if "config_flags.run(" in path.read_text(encoding="utf-8")
] + ["tml_jax.interop.inkling"]
_TINY = "--config=experiments/interaction.py:tiny"
_DEVICES = [
  "dev/accel0",
  "dev/vfio/0",
  "dev/nvidia0",
  "dev/nvidiactl",
  "dev/dxg",
  "dev/kfd",
]


def test_the_commands_are_found():
  assert {"tml_jax.sample", "tml_jax.aot", "launch.preflight"} <= {*MODULES}
  assert len(MODULES) == 13


@pytest.mark.parametrize("module", MODULES)
def test_help_needs_no_other_flag(module):
  result = commands.run("-m", module, "--help")
  assert (result.returncode, result.stderr) == (1, "")  # as absl ends it
  for name in ("workdir", "data_dir", "config", "plugins"):
    assert f"\n  --{name}:" in result.stdout, name


@pytest.mark.parametrize("flag", ["--helpshort", "--helpfull", "-?", "-help"])
def test_other_forms_of_help(flag):
  result = commands.run("-m", "tml_jax.aot", flag, "--num_slices=2")
  assert (result.returncode, result.stderr) == (1, "")
  assert "--topology:" in result.stdout
  # Flags of everything that is imported, those of absl among them.
  assert ("--verbosity" in result.stdout) == (flag == "--helpfull")


def test_help_shows_flags_of_tools_in_plugins_and_of_parts(tmp_path):
  plugin = tmp_path / "mine.py"
  plugin.write_text(
    "from absl import flags\n"
    "from tml_jax import tools\n"
    "flags.DEFINE_string('my_flag', '', 'Of mine.')\n"
    "@tools.register('mine')\n"
    "class Mine:\n"
    "  pass\n"
  )
  result = commands.run(
    "-m", "tml_jax.sample", f"--plugins={plugin}", "--helpfull"
  )
  assert "--my_flag: Of mine." in result.stdout, result.stderr
  assert "--tool_delay:" in commands.run("-m", "tml_jax.sample", "-?").stdout


@pytest.mark.parametrize(
  "content, words",
  [
    (None, "No such file"),
    (b"\xff", "can't decode byte 0xff"),
    (b"--nothing_like=1", "Unknown command line flag"),
  ],
)
def test_a_bad_flagfile_is_one_line(content, words, tmp_path):
  file = tmp_path / "flags"
  if content is not None:
    file.write_bytes(content)
  result = commands.run("-m", "tml_jax.inspect", _TINY, f"--flagfile={file}")
  assert result.returncode == 2
  assert len(result.stderr.splitlines()) == 1 and words in result.stderr


def test_variables_that_change_results_are_refused(monkeypatch):
  monkeypatch.setenv("JAX_ENABLE_X64", "True")
  with pytest.raises(errors.UserError, match=r"\$JAX_ENABLE_X64=True: unset"):
    command.prepare()


@pytest.mark.parametrize("device", _DEVICES)
def test_an_accelerator_is_found_by_its_file(device, tmp_path):
  (tmp_path / "dev").mkdir()
  (tmp_path / "dev" / "null").touch()
  (tmp_path / "dev" / "vfio").mkdir()
  (tmp_path / "dev" / "vfio" / "vfio").touch()  # of the kernel, everywhere
  assert not command.has_accelerator(tmp_path)
  (tmp_path / device).touch()
  assert command.has_accelerator(tmp_path)


def test_a_tpu_is_found_on_the_bus(tmp_path):
  for maker in ("0x8086", "0x1ae0"):
    folder = tmp_path / "sys/bus/pci/devices" / maker
    folder.mkdir(parents=True)
    assert not command.has_accelerator(tmp_path)
    (folder / "vendor").write_text(f"{maker}\n")
  assert command.has_accelerator(tmp_path)


@pytest.mark.parametrize("told", ["", "cuda,cpu"])
def test_the_choice_of_the_user_stays(told, monkeypatch):
  monkeypatch.setattr(command, "has_accelerator", lambda root: False)
  monkeypatch.setenv("JAX_PLATFORMS", told)
  if not told:
    monkeypatch.delenv("JAX_PLATFORMS")
  command.prepare()
  assert os.environ["JAX_PLATFORMS"] == (told or "cpu")


def test_warnings_of_packages_are_no_errors(monkeypatch):
  told = "error,ignore::UserWarning"
  monkeypatch.setenv("PYTHONWARNINGS", told)
  monkeypatch.setattr(sys, "warnoptions", told.split(","))
  with warnings.catch_warnings(record=True) as found:
    warnings.simplefilter("error")
    command.prepare()
    warnings.warn("of a package", RuntimeWarning, stacklevel=1)
  assert [str(each.message) for each in found] == ["of a package"]
  # What worker processes are started with.
  assert os.environ["PYTHONWARNINGS"] == "ignore::UserWarning"
  assert sys.warnoptions == ["ignore::UserWarning"]


def _full_by_a_library() -> None:
  try:
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), "/disk/metrics")
  except OSError as error:
    raise RuntimeError("the writer has ended") from error


def _full_in_words() -> None:
  raise ValueError("RESOURCE_EXHAUSTED: [OS error 28: No space left on device]")


@pytest.mark.parametrize(
  "write, words",
  [
    (_full_by_a_library, "/disk/metrics cannot be written (No space left on"),
    (
      _full_in_words,
      "a file cannot be written (No space left on device): make",
    ),
  ],
)
def test_a_full_disk_is_one_line(write, words, capsys):
  with pytest.raises(SystemExit) as ended:
    with command.ending():
      write()
  assert ended.value.code == errors.Status.FAILED  # it may have room next time
  (line,) = capsys.readouterr().err.splitlines()
  assert line.startswith(f"error: {words}")


def test_a_file_that_cannot_grow_ends_in_one_line(tmp_path):
  with commands.files_of_at_most(100):
    with pytest.raises(errors.UserError, match="written .File too large.: ma"):
      with command.full_disk():
        (tmp_path / "x").write_bytes(b"x" * 1000)


def test_another_fault_stays_what_it_is():
  for error in (OSError(errno.EIO, "?"), ValueError("of ours")):
    with pytest.raises(type(error)):
      with command.full_disk():
        raise error


def test_text_that_the_terminal_lacks_and_a_reader_that_has_gone():
  script = (
    "from tml_jax.config import flags\n"
    "def main(config):\n"
    "  print('caf\\u00e9 \\udcff')\n"
    "  while True: print('x' * 9999, flush=True)\n"
    f"flags.run(main, default={_TINY.removeprefix('--config=')!r})"
  )
  shell = (
    f'PYTHONIOENCODING=ascii {sys.executable} -c "$0" | head -1;'
    " echo ${PIPESTATUS[0]}"
  )
  result = subprocess.run(
    ["bash", "-c", shell, script],
    cwd=commands.ROOT,
    capture_output=True,
    text=True,
    timeout=60,
    check=True,
  )
  assert result.stdout == "caf\\xe9 \\udcff\n141\n"
  assert result.stderr == ""
