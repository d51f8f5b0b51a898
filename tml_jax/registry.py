"""Names that are written once: in the file of what they name.

For: scenario families, data sources, tools and metrics, which register
themselves where they are written. Not for: files outside of the repository
(`plugins`). Start reading at `Registry`.
"""

import difflib
import importlib
import pkgutil
import sys
from collections.abc import Callable, Iterator
from typing import Generic, TypeVar

from tml_jax import errors

T = TypeVar("T")

# What to do about a name that is not in the repository.
HINT = "(what a file of yours registers needs --plugins=FILE.py)"
# Modules that have registered something, of all kinds.
modules: set[str] = set()


class Registry(Generic[T]):
  """Things of one kind by name, in alphabetical order.

  The files of its packages are imported at the first look, whatever they
  register; so a new file is found, and a helper beside it does no harm.
  """

  def __init__(self, kind: str, *, packages: tuple[str, ...] = ()):
    """Starts empty.

    Args:
      kind: what the names name, for messages.
      packages: dotted names; every file directly in them is imported.
    """
    self._kind = kind
    self._packages = packages
    self._unread = list(packages)
    self._things: dict[str, T] = {}

  def register(self, name: str) -> Callable[[T], T]:
    """Decorator that makes a class or a function known as `name`."""

    def decorator(thing: T) -> T:
      self.add(name, thing=thing, module=thing.__module__)
      return thing

    return decorator

  def add(self, name: str, *, thing: T, module: str) -> None:
    """Makes `thing`, written in `module`, known as `name`.

    Raises:
      errors.UserError: the name is taken; says by which file.
    """
    if not module.startswith(self._packages):
      self._find()  # who comes from outside is the one to blame
    if name in self._things:
      raise errors.UserError(
        f"{file_of(module)}: another {self._kind} is named {name!r}; give"
        " this one a name of its own"
      )
    modules.add(module)
    self._things[name] = thing

  def __getitem__(self, name: str) -> T:
    """The thing of that name.

    Raises:
      errors.UserError: there is none; says which are near.
    """
    if name not in self:
      raise errors.UserError(
        f"no {self._kind} is named {name!r}; {nearest(name, names=list(self))}"
        f" {HINT}"
      )
    return self._things[name]

  def __contains__(self, name: str) -> bool:
    self._find()
    return name in self._things

  def __iter__(self) -> Iterator[str]:
    self._find()
    return iter(sorted(self._things))

  def __len__(self) -> int:
    self._find()
    return len(self._things)

  def _find(self) -> None:
    while self._unread:
      package = importlib.import_module(self._unread.pop())
      for file in pkgutil.iter_modules(package.__path__):
        importlib.import_module(f"{package.__name__}.{file.name}")


def file_of(module: str) -> str:
  """The file of an imported module, for messages."""
  return getattr(sys.modules.get(module), "__file__", None) or module


def nearest(name: str, *, names: list[str]) -> str:
  """The part of an error message that helps with a misspelt name."""
  close = difflib.get_close_matches(name, names, n=3, cutoff=0.5)
  if close:
    return "did you mean " + " or ".join(map(repr, close)) + "?"
  return "there are " + ", ".join(names)
