"""Trains a tokenizer: `python -m tml_jax.train_tokenizer --data_dir=DATA ...`.

  --corpora=A,B --out=FILE [--config=...] [--max_mib=64] [--overwrite]

For: a sentencepiece model of the text of chosen corpora, which every command
takes as --tokenizer=FILE. Not for: the usual one, which `prepare` makes of all
corpora of its config. It has streams.text_vocab_size pieces at most, those of
`tiny` if no --config is given. The same text gives the same file.
"""

import pathlib

from absl import flags

from tml_jax import errors, files, registry
from tml_jax.config import Config
from tml_jax.config import flags as config_flags
from tml_jax.data import transcripts
from tml_jax.streams import sentencepieces, tokenizer

_CORPORA = flags.DEFINE_list(
  "corpora", [], "Folders of corpora in --data_dir, A,B,C."
)
_MAX_MIB = flags.DEFINE_integer(
  "max_mib",
  transcripts.MAX_BYTES >> 20,
  "Text to train on, MiB: of more, a sample that depends on the text alone.",
  lower_bound=1,
)
_OVERWRITE = flags.DEFINE_bool(
  "overwrite", False, "Replace another tokenizer that is at --out."
)


def main(config: Config) -> None:
  root = pathlib.Path(config_flags.data_dir())
  folders = [root / name for name in _chosen(root)]
  out = _check_out(config_flags.OUT.value)
  found = transcripts.sample(
    (text for folder in folders for text in transcripts.texts(folder)),
    max_bytes=_MAX_MIB.value << 20,
  )
  content = sentencepieces.train(found.texts, config=config.streams)
  is_same = out.exists() and out.read_bytes() == content
  if out.exists() and not is_same and not _OVERWRITE.value:
    raise _is_another(out)
  if not is_same:
    files.write_atomically(out, content=content)
  made = tokenizer.load(str(out), config=config.streams)
  print(
    f"{out}: {'as it was' if is_same else 'written'},"
    f" {tokenizer.described(str(out))}, {made.num_pieces} of"
    f" {config.streams.text_vocab_size} pieces, trained on"
    f" {len(found.texts)} different texts, {found.bytes / 2**20:.2f} of"
    f" {found.read / 2**20:.2f} MiB that were read"
  )


def _chosen(root: pathlib.Path) -> list[str]:
  """The corpora of --corpora, each once, in order of their names.

  Raises:
    errors.UserError: none are given, or one is not there.
  """
  if not root.is_dir():
    raise errors.UserError(f"--data_dir={root}: there is no such directory")
  known = transcripts.corpora(root)
  if not known:
    raise errors.UserError(
      f"--data_dir={root} has no corpora: run `python -m tml_jax.prepare` first"
    )
  if not _CORPORA.value:
    raise errors.UserError(
      f"--corpora is missing: name some of {', '.join(known)}"
    )
  for name in _CORPORA.value:
    if name not in known:
      raise errors.UserError(
        f"--corpora: there is no {name!r} in {root};"
        f" {registry.nearest(name, names=known)}"
      )
  return sorted({*_CORPORA.value})


def _check_out(path: str) -> pathlib.Path:
  """The file --out, proved writable; whatever is there may be replaced.

  Raises:
    errors.UserError: it cannot be written, or is no tokenizer that this could
      have made.
  """
  if not path.endswith(".model"):
    raise errors.UserError(f"--out={path}: name a file that ends with .model")
  out = pathlib.Path(path)
  if out.is_dir():
    raise errors.UserError(f"--out={path} is a directory: name a file")
  files.make(out.parent, what=f"--out={path}: {out.parent}")
  if out.exists() and not _OVERWRITE.value:
    try:
      sentencepieces.Pieces(out.read_bytes())
    except ValueError as error:
      raise _is_another(out) from error
  return out


def _is_another(out: pathlib.Path) -> errors.UserError:
  return errors.UserError(
    f"--out={out} is there, and is another than this makes: give --overwrite to"
    " replace it (models trained with it will not fit the new one), or another"
    " --out"
  )


if __name__ == "__main__":
  config_flags.run(main, default="experiments/interaction.py:tiny")
