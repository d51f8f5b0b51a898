"""The plugins that the documents show, as files."""

import pathlib
import re

from tests.helpers import commands

DOCUMENTS = {
  "twice": "families",
  "support_line": "add_a_data_source",
  "read_aloud": "add_a_data_source",
  "dice": "tools",
  "upside_down": "augmentation",
  "at_once": "plugins",
  "halves": "mend",
}


def write(name: str, folder: pathlib.Path) -> str:
  """Writes a file of Python in a document; returns its path.

  They stand in a document in the order of `DOCUMENTS`.
  """
  document = DOCUMENTS[name]
  text = (commands.ROOT / "docs" / f"{document}.md").read_text()
  found = re.findall(r"```python\n(.*?)```", text, re.DOTALL)
  there = [each for each in DOCUMENTS if DOCUMENTS[each] == document]
  code = found[there.index(name)]
  path = folder / f"{name}.py"
  path.write_text(code)
  return str(path)
