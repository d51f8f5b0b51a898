"""Code of yours: families, sources, tools and metrics outside the repository.

For: `--plugins=FILE.py,...` of every command, and installed packages with an
entry point in the group `tml_jax.plugins`. Not for: registering (`registry`);
a plugin is imported and does that itself. Start reading at `load`. How to
write one: docs/plugins.md.
"""

import dataclasses
import importlib.metadata
import importlib.util
import os
import sys
import zlib
from collections.abc import Callable, Iterable
from typing import Any

from tml_jax import errors, registry

GROUP = "tml_jax.plugins"


@dataclasses.dataclass(frozen=True)
class Plugin:
  """One that is loaded.

  Attributes:
    name: of the file without its folder, or of the entry point.
    source: the file, absolute; of an entry point its package.
    version: CRC-32 of the file, or version of the package.
  """

  name: str
  source: str
  version: str

  @property
  def is_file(self) -> bool:
    return os.path.isabs(self.source)


_loaded: dict[str, Plugin] = {}  # by source and name


def load(files: Iterable[str]) -> None:
  """Imports what is installed, then `files`; each once in a process.

  Raises:
    errors.UserError: one cannot be imported, or registers nothing.
  """
  entries = importlib.metadata.entry_points(group=GROUP)
  for entry in sorted(entries, key=lambda entry: entry.name):
    _load_entry(entry)
  for file in files:
    _load_file(file)


def files() -> tuple[str, ...]:
  """The files that are loaded: what `load` of another process is given."""
  return tuple(p.source for p in _loaded.values() if p.is_file)


def as_flags() -> list[str]:
  """Arguments that make another command load the same files."""
  return [f"--plugins={','.join(files())}"] if files() else []


def record() -> list[dict[str, Any]]:
  """What is loaded, as JSON values for the record of a run."""
  return [dataclasses.asdict(plugin) for plugin in _loaded.values()]


def versions() -> dict[str, str]:
  """Of what is loaded, by name: the same in all processes of a run."""
  return {plugin.name: plugin.version for plugin in _loaded.values()}


def check(recorded: list[dict[str, Any]], *, run: str) -> None:
  """Refuses to go on with a run without the plugins that it began with.

  Args:
    recorded: from `record`.
    run: its directory, for the message.

  Raises:
    errors.UserError: one is missing.
  """
  names = {plugin.name for plugin in _loaded.values()}
  for plugin in (Plugin(**fields) for fields in recorded):
    if plugin.name not in names:
      fix = f"install {plugin.source} {plugin.version} again"
      if plugin.is_file:
        fix = f"add --plugins={plugin.source}"
      raise errors.UserError(
        f"{run} is a run with the plugin {plugin.name}, which is not loaded:"
        f" {fix}, or give another --workdir"
      )


def check_named(versions: Iterable[str], *, what: str) -> None:
  """Refuses what was made with plugins that are not loaded here.

  Args:
    versions: names, of `versions`.
    what: was made with them, for the message.

  Raises:
    errors.UserError: one is missing.
  """
  names = {plugin.name for plugin in _loaded.values()}
  for name in versions:
    if name not in names:
      fix = "install it again"
      if name.endswith(".py"):
        fix = f"add --plugins=FOLDER/{name}"
      raise errors.UserError(
        f"{what} was made with the plugin {name}, which is not loaded: {fix}"
      )


def _load_file(file: str) -> None:
  path = os.path.abspath(file)
  if path in _loaded:
    return
  if not path.endswith(".py") or not os.path.isfile(path):
    raise errors.UserError(
      f"--plugins={file}: there is no such file; name files that end with .py,"
      f" relative to {os.getcwd()}"
    )
  with open(path, "rb") as opened:
    version = f"{zlib.crc32(opened.read()):08x}"
  # Named after its path: worker processes find its classes under this name.
  stem = os.path.basename(path).removesuffix(".py")
  name = f"tml_jax_plugin_{stem}_{zlib.crc32(path.encode()):08x}"
  spec = importlib.util.spec_from_file_location(name, path)
  assert spec is not None and spec.loader is not None  # of a .py file
  loader, module = spec.loader, importlib.util.module_from_spec(spec)
  sys.modules[name] = module
  _import(lambda: loader.exec_module(module), what=f"--plugins={file}")
  if name not in registry.modules:
    raise _nothing(f"--plugins={file}")
  _loaded[path] = Plugin(os.path.basename(path), path, version)


def _load_entry(entry: importlib.metadata.EntryPoint) -> None:
  assert entry.dist is not None  # of one that is installed
  what = f"the installed plugin {entry.name} of {entry.dist.name}"
  key = f"{entry.dist.name} {entry.name}"
  if key in _loaded:
    return
  _import(entry.load, what=what)
  root = entry.module.partition(".")[0]
  if not any(name.partition(".")[0] == root for name in registry.modules):
    raise _nothing(what)
  _loaded[key] = Plugin(entry.name, entry.dist.name, entry.dist.version)


def _import(run: Callable[[], object], *, what: str) -> None:
  """Whatever a plugin raises is for its author to mend."""
  try:
    run()
  except errors.UserError:
    raise
  except Exception as error:
    frame = error.__traceback__
    assert frame is not None  # of what was raised
    while frame.tb_next is not None:
      frame = frame.tb_next
    where = f"{frame.tb_frame.f_code.co_filename}:{frame.tb_lineno}"
    if isinstance(error, SyntaxError):
      where = f"{error.filename}:{error.lineno}"
    raise errors.UserError(
      f"{what} cannot be imported: {type(error).__name__}: {error} ({where});"
      " mend or remove it"
    ) from error


def _nothing(what: str) -> errors.UserError:
  return errors.UserError(
    f"{what} registers nothing: give a family its `name`, or put"
    " `@source.register`, `@tools.register` or `@panel.register` over what it"
    " adds (docs/plugins.md)"
  )
