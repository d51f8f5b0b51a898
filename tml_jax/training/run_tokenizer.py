"""The tokenizer of a run: found, compared and kept beside its config.

For: `train`, which keeps a copy in the workdir, and the commands that read a
run, which need nothing else then. Not for: using it (`streams.tokenizer`).
Start reading at `of_run`, then `to_train`. Nothing here imports jax.
"""

import pathlib

from absl import logging

from tml_jax import errors, files
from tml_jax import workdir as workdir_lib
from tml_jax.streams import tokenizer


def kept(run: str | pathlib.Path) -> str:
  """The file of the tokenizer in a workdir; "" where there is none.

  Raises:
    errors.UserError: there are two.
  """
  names = tokenizer.FILENAMES
  found = [name for name in names if (files.path(run) / name).is_file()]
  if len(found) > 1:
    raise errors.UserError(
      f"{run} has {' and '.join(found)}, and a run has one tokenizer: move the"
      " other away"
    )
  return str(files.path(run) / found[0]) if found else ""


def of_run(run: str, *, given: str, data_dir: str) -> str:
  """The file of the tokenizer that a run was trained with.

  That is its own. A run of an older version, or of weights that came without,
  has none: then `given`, or else that of `data_dir`.

  Args:
    run: the workdir.
    given: the value of --tokenizer, which may be empty.
    data_dir: the prepared data.

  Raises:
    errors.UserError: `given` is another than the run's own; names both.
  """
  own = kept(run)
  if not own:
    if not given:
      _warn_of_imported(run)
    return tokenizer.path(data_dir, given=given)
  if given and tokenizer.digest(given) != tokenizer.digest(own):
    raise errors.UserError(
      f"--tokenizer={given} is not the tokenizer of {run}: that is"
      f" {tokenizer.described(own)}, this is {tokenizer.described(given)}."
      " Its text would be read wrongly; leave --tokenizer out, or begin"
      " another run"
    )
  return own


def to_train(
  run: str, *, is_begun: bool, init_from: str, given: str, data_dir: str
) -> str:
  """The file of the tokenizer to train with.

  A run that is resumed has its own. A new one takes `given`, else that of the
  weights that it begins with, else that of `data_dir`.

  Args:
    run: the workdir.
    is_begun: whether there is anything to resume.
    init_from: a workdir, or WORKDIR/checkpoints/STEP; may be empty.
    given: the value of --tokenizer, which may be empty.
    data_dir: the prepared data.

  Raises:
    errors.UserError: `given` is another than that of a run that is resumed.
  """
  if is_begun:
    return of_run(run, given=given, data_dir=data_dir)
  own = kept(workdir_of(init_from)) if init_from else ""
  if own and given and tokenizer.digest(given) != tokenizer.digest(own):
    logging.warning(
      "the weights of --init_from=%s were trained with %s, and --tokenizer is"
      " %s: their text rows mean other text",
      *(init_from, tokenizer.described(own), tokenizer.described(given)),
    )
  if init_from and not (given or own):
    _warn_of_imported(workdir_of(init_from))
  return given or own or tokenizer.path(data_dir)


def _warn_of_imported(run: str | pathlib.Path) -> None:
  """Says so where weights that came without a tokenizer get another."""
  if (
    files.path(run) / workdir_lib.CHECKPOINTS / workdir_lib.IMPORTED_STEP
  ).exists():
    logging.warning(
      "the imported weights of %s came without a tokenizer: with that of"
      " --data_dir their text rows mean other text; give theirs as"
      " --tokenizer=FILE",
      run,
    )


def workdir_of(path: str) -> pathlib.Path:
  """The workdir that is meant by it or by WORKDIR/checkpoints/STEP."""
  place = files.absolute(path)
  is_step = place.parent.name == workdir_lib.CHECKPOINTS
  return place.parent.parent if is_step else place


def keep(content: bytes, *, run: str | pathlib.Path) -> None:
  """Writes a tokenizer's file beside the config of a run."""
  name = tokenizer.filename(content)
  for other in tokenizer.FILENAMES:
    if other != name:
      (files.path(run) / other).unlink(missing_ok=True)
  target = files.path(run) / name
  if not target.exists() or target.read_bytes() != content:
    files.write_atomically(target, content=content)
