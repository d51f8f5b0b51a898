"""Looks at a config and its data without training: fields, counts, pages.

For: `python -m tml_jax.inspect --config=experiments/interaction.py:medium
--params` (nothing is allocated: shapes only), `--flat`, and `--timeline=train:3
--data_dir=DIR --out=OUT`, a picture of a conversation as it is trained on,
`--gallery`, one of every family in the mixture, and `--mixture=4`, what packed
sequences hold; `--data=DATA/calls` and `--batch=2`, pages of what is learned
from (docs/inspect.md). Not for: memory, time or sharding. docs/parameters.md
explains the table of `--params`.
"""

import dataclasses
import os
import pathlib
import sys

from absl import flags

from tml_jax import errors, files
from tml_jax.config import Config
from tml_jax.config import flags as config_flags
from tml_jax.config import text as config_text
from tml_jax.streams import batch as batch_lib
from tml_jax.streams import clock

_PARAMS = flags.DEFINE_bool(
  "params", False, "Print total and active parameters by module."
)
_FLAT = flags.DEFINE_bool("flat", False, "Print every field of the config.")

_TIMELINE = flags.DEFINE_string(
  "timeline", "", "Draw a conversation of --data_dir into --out: SPLIT:INDEX."
)

_GALLERY = flags.DEFINE_bool(
  "gallery",
  False,
  "Draw a conversation of every scenario family of the mixture into --out.",
)

_MIXTURE = flags.DEFINE_integer(
  "mixture",
  0,
  "Pack so many groups of --data_dir and print each entry's part of positions,"
  " sound, video and targets, and what is padding.",
  lower_bound=0,
)

_DATA = flags.DEFINE_list(
  "data",
  [],
  "Folders of prepared corpora: writes data.html, what is in them, into --out.",
)
_RECORDING = flags.DEFINE_multi_string(
  "recording",
  [],
  "ID or number of a recording that --data shows, CORPUS:ID where several have"
  " it; may be given several times. A few that differ if not given.",
)
_SECONDS = flags.DEFINE_float(
  "seconds", 60.0, "Of a recording that --data shows, at most.", lower_bound=1
)
_BATCH = flags.DEFINE_integer(
  "batch",
  0,
  "Writes batches.html, all that the next so many batches hold, into --out:"
  " the first of a run, or those behind the newest checkpoint of --workdir.",
  lower_bound=0,
)

# What --data is seen with where no --config is given.
_DEFAULT = "experiments/interaction.py:tiny"
_SHOWN = 1  # index of a family's conversation in the gallery


def main(config: Config) -> None:
  asked = (_PARAMS, _FLAT, _TIMELINE, _GALLERY, _MIXTURE, _DATA, _BATCH)
  if not any(flag.value for flag in asked):
    raise errors.UserError(
      "nothing to show: give --params, --flat, --timeline=train:0, --gallery,"
      " --mixture=4, --data=DATA/calls, --batch=1 or several"
    )
  if _RECORDING.value and not _DATA.value:
    raise errors.UserError(
      "--recording is of a corpus: give its folder, --data=DATA/calls"
    )
  if _FLAT.value:
    print(config_text.to_text(config), end="")
  if _PARAMS.value:
    import jax

    # Shapes need no accelerator; do not take one from a running job.
    jax.config.update("jax_platforms", "cpu")
    print(parameter_table(config))
  if _MIXTURE.value:
    from tml_jax.data import contents

    found = contents.measure(
      config,
      data_dir=config_flags.data_dir(),
      count=_MIXTURE.value,
      tokenizer_file=config_flags.TOKENIZER.value,
    )
    print(found.text())
  if _DATA.value:
    show_data(config, out=_out())
  if _BATCH.value:
    show_batches(config, data_dir=config_flags.data_dir(), out=_out())
  if _TIMELINE.value or _GALLERY.value:
    from tml_jax.streams import tokenizer

    data_dir, out = config_flags.data_dir(), _out()
    file = tokenizer.path(data_dir, given=config_flags.TOKENIZER.value)
  if _TIMELINE.value:
    draw_timeline(
      config,
      argument=_TIMELINE.value,
      data_dir=data_dir,
      tokenizer_file=file,
      out=out,
    )
  if _GALLERY.value:
    draw_gallery(config, data_dir=data_dir, tokenizer_file=file, out=out)


def _out() -> pathlib.Path:
  """The directory of --out, which can be written.

  Raises:
    errors.UserError: it is not given, or cannot be written.
  """
  out = config_flags.OUT.value
  if not out:
    raise errors.UserError("--out is missing: name a directory to write")
  files.make(pathlib.Path(out), what=f"--out={out}")
  return pathlib.Path(out)


def show_data(config: Config, *, out: pathlib.Path) -> None:
  """Writes data.html of the corpora of --data."""
  from tml_jax.page import write
  from tml_jax.streams import tokenizer

  beside = os.path.dirname(os.path.abspath(_DATA.value[0]))
  file = write.data_page(
    _DATA.value,
    config=config,
    tokenizer_file=tokenizer.path(
      config_flags.data_dir(default=beside), given=config_flags.TOKENIZER.value
    ),
    wanted=_RECORDING.value,
    seconds=_SECONDS.value,
    out=out,
  )
  print(f"wrote {file}")


def show_batches(config: Config, *, data_dir: str, out: pathlib.Path) -> None:
  """Writes batches.html of the next batches of a run."""
  from tml_jax import workdir as workdir_lib
  from tml_jax.page import batches
  from tml_jax.streams import tokenizer

  run, step, state = config_flags.WORKDIR.value, 0, None
  file = tokenizer.path(data_dir, given=config_flags.TOKENIZER.value)
  if run:
    from tml_jax.training import run_tokenizer, trained

    trained.check(run)
    step = workdir_lib.checkpoint_steps(run)[-1]
    state = batches.newest_state(
      files.path(run) / workdir_lib.CHECKPOINTS,
      step=step,
      name=workdir_lib.LOADER_STATE,
    )
    file = run_tokenizer.of_run(
      run, given=config_flags.TOKENIZER.value, data_dir=data_dir
    )
  written = batches.page(
    config,
    data_dir=data_dir,
    tokenizer_file=file,
    count=_BATCH.value,
    state=state,
    step=step,
    out=out,
  )
  print(f"wrote {written}")


def draw_timeline(
  config: Config,
  *,
  argument: str,
  data_dir: str,
  tokenizer_file: str,
  out: pathlib.Path,
) -> None:
  """Writes timeline.png, and drawing.png of what the agent draws in it."""
  import jax

  jax.config.update("jax_platforms", "cpu")
  from tml_jax.data import mixture, turns
  from tml_jax.logs import picture, transcript
  from tml_jax.streams import framing, microphone, tokenizer
  from tml_jax.tools import drawing

  timeline = mixture.pick(
    config,
    argument=argument,
    flag="timeline",
    data_dir=data_dir,
    tokenizer_file=tokenizer_file,
  )
  pieces = tokenizer.load(tokenizer_file, config=config.streams)
  timeline = turns.lay_out(timeline, config=config, tokenizer=pieces)
  grid = clock.of(config.streams)
  frames = framing.frames(timeline, config=config.streams, tokenizer=pieces)
  lines = transcript.lines(
    frames, timeline=timeline, tokenizer=pieces, grid=grid
  )
  print(*lines, sep="\n")
  picture.draw(
    frames,
    timeline=timeline,
    microphone=microphone.hear(timeline, grid=grid).reshape(-1),
    lines=lines,
    title=f"{timeline.id}   as recorded",
    grid=grid,
    path=out / "timeline.png",
  )
  drawn = drawing.Drawing(pieces, grid=grid)
  if any([drawn.observe(frame) for frame in frames]):
    (out / drawing.PNG).write_bytes(drawn.png())


def draw_gallery(
  config: Config, *, data_dir: str, tokenizer_file: str, out: pathlib.Path
) -> None:
  """Writes a page with a conversation of every family of the mixture.

  Raises:
    errors.UserError: no family in config.data.mixture, or missing data.
  """
  import jax

  jax.config.update("jax_platforms", "cpu")
  from tml_jax.data import mixture, scenarios, splits
  from tml_jax.logs import gallery
  from tml_jax.streams import tokenizer

  names = [n for n in mixture.weights(config) if n in scenarios.FAMILIES]
  if not names:
    raise errors.UserError(
      f"data.mixture = {config.data.mixture} has no scenario family; there are "
      + ", ".join(scenarios.FAMILIES)
    )
  voices, exhibits = mixture.open_voices(config, data_dir=data_dir), {}
  for name in names:
    family = mixture.open_entry(
      name,
      config=config,
      data_dir=data_dir,
      split=splits.Split.TRAIN,
      voices=voices,
      grid=clock.of(config.streams),
    )
    title, paragraphs = family.described()
    exhibits[name] = gallery.Exhibit(family[_SHOWN], title, tuple(paragraphs))
  gallery.write(
    exhibits,
    config=config.streams,
    tokenizer=tokenizer.load(tokenizer_file, config=config.streams),
    out=out,
  )


@dataclasses.dataclass(frozen=True)
class Row:
  """One line of the table; sums include all the rows above them."""

  module: str
  total: int
  active: int  # used by one text token


# The modules, in order, and the sums between them.
MODULES = (
  "text embedding",
  "attention",
  "residual convolutions and norms",
  "router",
  "routed experts",
  "shared experts",
  "dense feed-forward",
  "unembedding",
  "= text model",
  "audio embedding",
  "patch embedding",
  "multi-token prediction",
  "= Inkling's tensors",
  "clock and stream embeddings",
  "flow head",
  "= everything",
)


def parameter_rows(config: Config) -> tuple[Row, ...]:
  """Exact counts by module, from shapes alone."""
  import flax
  import jax

  from tml_jax.models import interaction
  from tml_jax.models.execution import Execution

  model = interaction.InteractionModel(
    config.model, Execution.of(config).on_one_device()
  )
  # The least that reaches every parameter.
  inputs = batch_lib.empty_inputs((1, 8), audio=1, patches=1, pad=0)
  packed = batch_lib.Packed(inputs, inputs.tokens, inputs.tokens)
  variables = jax.eval_shape(model.init, jax.random.key(0), packed)
  shapes = flax.traverse_util.flatten_dict(
    flax.linen.meta.unbox(variables["params"]), sep="/"
  )
  totals = dict.fromkeys(MODULES, 0)
  for path, shape in shapes.items():
    totals[_module(path, config=config)] += shape.size
  model = config.model
  active = dict(totals)
  active["multi-token prediction"] = 0  # not run outside of training
  if model.num_experts:
    active["routed experts"] = (
      totals["routed experts"] // model.num_experts * model.experts_per_token
    )
  rows, total_sum, active_sum = [], 0, 0
  for module in MODULES:
    total_sum += totals[module]
    active_sum += active[module]
    if module.startswith("= "):
      rows.append(Row(module, total_sum, active_sum))
    else:
      rows.append(Row(module, totals[module], active[module]))
  return tuple(rows)


def parameter_table(config: Config) -> str:
  """`parameter_rows` as text, in B (10^9) and exactly."""
  line = "{:<33}{:>10}{:>10}{:>18}{:>16}"
  lines = [line.format(config.name, "total B", "active B", "total", "active")]
  for row in parameter_rows(config):
    lines.append(
      line.format(
        row.module,
        f"{row.total / 1e9:.3f}",
        f"{row.active / 1e9:.3f}",
        f"{row.total:,}",
        f"{row.active:,}",
      )
    )
  return "\n".join(lines)


def _module(path: str, *, config: Config) -> str:
  """The row of MODULES that a parameter is counted in."""
  section, *names = path.split("/")
  if section == "unembedding":
    return "unembedding"
  if section == "mtp":
    return "multi-token prediction"
  if section == "flow_head":
    return "flow head"
  if section == "embed":
    if names[0] == "clock" or names[:2] == ["dmel", "streams"]:
      return "clock and stream embeddings"
    return {"dmel": "audio embedding", "hmlp": "patch embedding"}.get(
      names[0], "text embedding"
    )
  assert section == "trunk", path
  if len(names) > 1 and names[1] == "attention":
    return "attention"
  if len(names) < 3 or names[1] != "mlp":
    return "residual convolutions and norms"
  if config.model.is_dense(int(names[0].removeprefix("layer_"))):
    return "dense feed-forward"
  if names[2] in ("router", "scale"):
    return "router"
  return "shared experts" if "shared" in names[2] else "routed experts"


if __name__ == "__main__":
  named = {each.lstrip("-").partition("=")[0] for each in sys.argv[1:]}
  has_run = "workdir" in named
  config_flags.run(
    main,
    config_from=(
      config_flags.ConfigFrom.WORKDIR
      if has_run
      else config_flags.ConfigFrom.FLAG
    ),
    default=_DEFAULT if "data" in named and not has_run else "",
  )
