"""The plugins that the documents show, as files."""

import pathlib
import re

from tests.helpers import commands

DOCUMENTS = {
  "twice": "families",
  "read_aloud": "add_a_data_source",
  "dice": "tools",
  "upside_down": "augmentation",
  "at_once": "plugins",
  "halves": "mend",
}


def write(name: str, folder: pathlib.Path) -> str:
  """Writes the first file of Python in a document; returns its path."""
  text = (commands.ROOT / "docs" / f"{DOCUMENTS[name]}.md").read_text()
  code = re.search(r"```python\n(.*?)```", text, re.DOTALL)[1]
  path = folder / f"{name}.py"
  path.write_text(code)
  return str(path)
