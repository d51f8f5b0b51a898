"""What surrounds the work of a command: environment, terminal, its end.

For: `flags.run`. Not for: flags. Start reading at `prepare`, then `ending`.
Imports neither jax nor anything that does: what is set here must stand before.
"""

import contextlib
import errno
import importlib.metadata
import os
import pathlib
import sys
import warnings
from collections.abc import Iterator
from typing import Any

from absl import logging

from tml_jax import buckets, errors

# jax reads these when it is imported; with them the same command computes
# something else, or nothing.
_REFUSED = {
  "JAX_ENABLE_X64": "the dtypes of a run are those of its config",
  "JAX_DISABLE_JIT": "every step would be computed operation by operation",
}
_TRUE = ("y", "yes", "t", "true", "on", "1")
# Files that the driver of a TPU (two kinds), an Nvidia GPU (two) or an AMD GPU
# makes, below the root.
_DEVICES = (
  "dev/accel*",
  "dev/vfio/[0-9]*",
  "dev/nvidia*",
  "dev/dxg",
  "dev/kfd",
)
_GOOGLE = "0x1ae0"  # of PCI
_PLUGINS = "jax_plugins"  # entry points of devices that jax learns about
_FULL = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}
_FULL_WORDS = tuple(map(os.strerror, sorted(_FULL)))


def prepare() -> None:
  """Makes this process one that a command can run in.

  Raises:
    errors.UserError: a variable of the environment under which the command
      cannot give its results.
  """
  for name, reason in _REFUSED.items():
    value = os.environ.get(name, "")
    if value.lower() in _TRUE:
      raise errors.UserError(f"${name}={value}: unset it, as {reason}")
  if sys.platform == "linux" and not has_accelerator(pathlib.Path("/")):
    # jax would look for a TPU and report at length that there is none.
    os.environ.setdefault("JAX_PLATFORMS", "cpu")
  _warn_only()
  logging.get_absl_handler().setFormatter(_Formatter())
  for stream in (sys.stdout, sys.stderr):
    if hasattr(stream, "reconfigure"):  # no terminal in a notebook
      stream.reconfigure(errors="backslashreplace")


class _Formatter(logging.PythonFormatter):
  """Lines whose names and texts of others a terminal only shows."""

  def format(self, record: Any) -> str:
    lines = super().format(record).split("\n")
    return "\n".join(map(errors.escaped, lines))


def has_accelerator(root: pathlib.Path) -> bool:
  """Whether jax may find a device besides the CPU; `root` is / in use."""
  if any(next(root.glob(pattern), None) for pattern in _DEVICES):
    return True
  for vendor in root.glob("sys/bus/pci/devices/*/vendor"):
    if vendor.read_text().strip() == _GOOGLE:
      return True
  # A device of another maker: those of the known ones are looked for above.
  names = {e.name for e in importlib.metadata.entry_points(group=_PLUGINS)}
  return any("cuda" not in name and "rocm" not in name for name in names)


def _warn_only() -> None:
  """Warnings of packages do not end a command under $PYTHONWARNINGS=error.

  Nor its worker processes. `python -W error`, which is asked for this command
  alone, does what it says.
  """
  given = os.environ.get("PYTHONWARNINGS", "").split(",")
  left = [option for option in given if not _raises(option)]
  if left == given:
    return
  for option in given:
    if _raises(option) and option in sys.warnoptions:
      sys.warnoptions.remove(option)
  os.environ["PYTHONWARNINGS"] = ",".join(left)
  warnings.resetwarnings()
  for category in (
    DeprecationWarning,
    PendingDeprecationWarning,
    ImportWarning,
    ResourceWarning,
  ):
    warnings.simplefilter("ignore", category)  # as Python begins


def _raises(option: str) -> bool:
  """Whether an option of $PYTHONWARNINGS makes warnings errors."""
  action = option.partition(":")[0].strip()
  return bool(action) and "error".startswith(action)


@contextlib.contextmanager
def ending() -> Iterator[None]:
  """Ends the process as commands end: in one line where its user can mend it.

  With the exit status of the error (`errors.Status`); Ctrl-C and a reader of
  what is printed who has gone have those of shells.
  """
  try:
    with full_disk():
      yield
  except errors.UserError as error:
    print(f"error: {error}", file=sys.stderr)
    sys.exit(error.status)
  except BrokenPipeError:  # of `command | head`
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
    sys.exit(141)  # 128 + SIGPIPE
  except KeyboardInterrupt:
    print("interrupted", file=sys.stderr)
    sys.exit(errors.Status.INTERRUPTED)


@contextlib.contextmanager
def full_disk() -> Iterator[None]:
  """A disk that fills up inside has one line, and may be empty next time.

  Raises:
    errors.TransientError: what cannot be written, and why.
  """
  try:
    yield
  except errors.UserError:
    raise
  except Exception as error:
    if buckets.is_fault(error):
      raise buckets.fault(error, what="a bucket cannot be reached") from error
    line = _disk_fault(error)
    if line is None:
      raise
    raise errors.TransientError(line) from error


def _disk_fault(error: BaseException | None) -> str | None:
  """The line on a full disk, if one is behind `error`."""
  while error is not None:
    is_full = isinstance(error, OSError) and error.errno in _FULL
    # Writers in C++ tell of it in their own kinds of error.
    said = next((words for words in _FULL_WORDS if words in str(error)), None)
    if is_full or said:
      name = getattr(error, "filename", None)
      file = os.fsdecode(name) if isinstance(name, str | bytes) else "a file"
      reason = error.strerror if isinstance(error, OSError) else said
      return (
        f"{file} cannot be written ({reason or said}): make room, then run the"
        " same command again"
      )
    error = error.__cause__ or error.__context__
  return None
