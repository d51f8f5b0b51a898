"""Writes the page of some corpora.

For: `inspect --data`. Not for: batches (`batches`). Start at `data_page`.
"""

import os
import pathlib
from collections.abc import Sequence

from tml_jax import errors, files
from tml_jax.config import Config
from tml_jax.data import corpus, mixture
from tml_jax.data.corpus import index as index_lib
from tml_jax.page import budget, choose, facts, html, overview, recording
from tml_jax.page.choose import Chosen
from tml_jax.streams import clock, tokenizer

DATA = "data.html"


def open_corpora(
  paths: Sequence[str], *, config: Config
) -> dict[str, corpus.RecordSource]:
  """The corpora at some paths, by the names of their folders.

  Raises:
    errors.UserError: one is no corpus, is not finished, has the name of
      another, or has video of another size than the config.
  """
  found: dict[str, corpus.RecordSource] = {}
  for path in paths:
    name = os.path.basename(os.path.abspath(path))
    if name in found:
      raise errors.UserError(
        f"--data={','.join(paths)}: two corpora are named {name}; show one at"
        " a time"
      )
    _check(pathlib.Path(path))
    found[name] = corpus.RecordSource(path)
    mixture.check_video(found[name], config=config)
  return found


def _check(path: pathlib.Path) -> None:
  """Says what a folder is that is no finished corpus."""
  if (path / corpus.INDEX).is_file():
    return
  if not path.is_dir():
    raise errors.UserError(f"--data={path}: there is no such folder")
  if (path / index_lib.UNITS).is_dir():
    raise errors.UserError(
      f"--data={path} is not finished: it has units and no {corpus.INDEX}; let"
      " `python -m tml_jax.prepare` go on to its end"
    )
  inside = sorted(each.parent.name for each in path.glob(f"*/{corpus.INDEX}"))
  hint = "give the folder that `python -m tml_jax.prepare --dst` has written"
  if inside:
    hint = f"it holds corpora: give --data={path / inside[0]}" + (
      f" or another of {', '.join(inside)}" if len(inside) > 1 else ""
    )
  raise errors.UserError(f"--data={path} is no corpus; {hint}")


def data_page(
  paths: Sequence[str],
  *,
  config: Config,
  tokenizer_file: str,
  wanted: Sequence[str],
  seconds: float,
  out: pathlib.Path,
) -> pathlib.Path:
  """Writes `data.html`: some corpora in numbers, and a few of their items.

  Args:
    paths: folders of corpora.
    config: the experiment that they are seen with.
    tokenizer_file: of the text.
    wanted: ids or numbers of recordings; a few of each corpus if not given.
    seconds: that are shown of a recording, at most.
    out: a directory that can be written.

  Returns:
    The file.

  Raises:
    errors.UserError: before it is written, what is missing or wrong.
  """
  sources = open_corpora(paths, config=config)
  pieces = tokenizer.load(tokenizer_file, config=config.streams)
  chosen = choose.asked(wanted, sources=sources)
  known = {
    name: facts.of(source, path=path)
    for path, (name, source) in zip(paths, sources.items(), strict=True)
  }
  sections = []
  for name, source in sources.items():
    sections.append(
      overview.section(
        known[name],
        transfers=budget.transfers(source),
        budget=budget.measure(source, config=config, tokenizer=pieces),
        config=config,
      )
    )
  shown: list[Chosen] = list(chosen)
  if not wanted:
    for each in known.values():
      shown += choose.differing(each)
  for each in shown:
    sections.append(
      recording.section(
        each,
        source=sources[each.corpus],
        config=config,
        tokenizer=pieces,
        seconds=seconds,
      )
    )
  window = clock.of(config.streams).ms
  lead = (
    f"<p>{html.text(', '.join(paths))}, as the config"
    f" <b>{html.text(config.name)}</b> sees them: windows of {window} ms,"
    f" tokenizer {html.text(tokenizer.described(tokenizer_file))}.</p>"
  )
  title = f"Data: {', '.join(sources)}"
  file = out / DATA
  files.write_atomically(
    file, content=html.page(title, lead=lead, sections=sections)
  )
  return file
