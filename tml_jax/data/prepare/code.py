"""Names the code that makes recordings of a source.

For: `prepare`, which makes a corpus again when that code has changed. Start
reading at `code_of`. Libraries that decode are not part of it: a new FFmpeg
rebuilds nothing.
"""

import ast
import inspect
import sys
import types
import zlib
from collections.abc import Callable

_PACKAGES = ("tml_jax.data", "tml_jax.streams")


def code_of(factory: Callable[..., object]) -> str:
  """Names the code of a source and of ours that it imports.

  Comments, documentation and format do not count.
  """
  found: dict[str, types.ModuleType] = {}
  _collect(sys.modules[factory.__module__], found)
  checksum = 0
  for name in sorted(found):
    text = _meaning(inspect.getsource(found[name]))
    checksum = zlib.crc32(text.encode(errors="backslashreplace"), checksum)
  return f"{checksum:08x}"


def _collect(
  module: types.ModuleType, found: dict[str, types.ModuleType]
) -> None:
  """Adds a module and those of data and streams that it uses, once each."""
  if module.__name__ in found:
    return
  found[module.__name__] = module
  for value in vars(module).values():
    if isinstance(value, types.ModuleType):
      name = value.__name__
    else:
      name = getattr(value, "__module__", None) or ""
    if name.startswith(_PACKAGES) and name in sys.modules:
      _collect(sys.modules[name], found)


def _meaning(code: str) -> str:
  """Code without comments and documentation, in one format."""
  tree = ast.parse(code)
  for node in ast.walk(tree):
    body = getattr(node, "body", None)
    if isinstance(body, list):
      node.body = [  # type: ignore[attr-defined]  # of what has a body
        line
        for line in body
        if not (
          isinstance(line, ast.Expr) and isinstance(line.value, ast.Constant)
        )
      ]
  return ast.unparse(tree)
