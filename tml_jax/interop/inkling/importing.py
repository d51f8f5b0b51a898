"""Inkling's safetensors into the checkpoint of a workdir, array by array.

For: `run`, called by `python -m tml_jax.interop.inkling --import`. Not for:
small models in memory (`model.from_hf`). Start at `plan`, which
refuses everything that can be refused without data.
"""

import collections
import dataclasses
import json
import pathlib
from typing import Any

import jax
import numpy as np
from absl import logging
from flax import traverse_util
from jax.experimental import multihost_utils

from tml_jax import errors
from tml_jax import workdir as workdir_lib
from tml_jax.config import Config
from tml_jax.config import streams as streams_config
from tml_jax.interop.inkling import config as config_lib
from tml_jax.interop.inkling import destination, dims, safetensors_files
from tml_jax.interop.inkling import names as names_lib
from tml_jax.parallel import mesh as mesh_lib
from tml_jax.streams import tokenizer as tokenizer_lib
from tml_jax.training import optim, run_tokenizer, streamed
from tml_jax.training import state as state_lib

_CONFIG = "config.json"
_NAME = "inkling"
_TOKENIZERS = tokenizer_lib.FILENAMES[::-1]  # a checkpoint may have both
_LISTED = 6  # tensors in one message
# Source bytes of one step of the conversion.
_STEP_BYTES = safetensors_files.CHUNK_BYTES
Path = tuple[str, ...]


@dataclasses.dataclass(frozen=True)
class Plan:
  """What an import will do.

  Attributes:
    config: of the workdir.
    reader: of the source.
    rules: by path of ours; several where a parameter stacks layers.
    text_rows: how many rows of the vocabulary come from the source.
    tokenizer: content of its file; None where the source has none.
  """

  config: Config
  reader: safetensors_files.Reader
  rules: dict[Path, list[names_lib.Rule]]
  text_rows: int
  tokenizer: bytes | None = None


def plan(
  config: Config, *, src: str, model_from_src: bool, tokenizer_file: str = ""
) -> Plan:
  """Compares source and config; reads headers only.

  Args:
    config: the experiment.
    src: directory or URL of the checkpoint.
    model_from_src: whether the model is whatever the source has; otherwise
      the config's model has to be the same.
    tokenizer_file: that goes with the weights, where not the source's own.

  Raises:
    errors.UserError: the source is broken or is not that model; every
      difference is listed.
  """
  if not src:
    raise errors.UserError("--src is missing: name a directory or a URL")
  source = safetensors_files.Source(src)
  text = source.read(_CONFIG)
  if text is None:
    raise errors.UserError(f"--src={src} holds no {_CONFIG}")
  try:
    values = json.loads(text)
    if not isinstance(values, dict):
      raise ValueError("no JSON object")
  except (ValueError, RecursionError) as error:
    raise errors.UserError(f"{src}/{_CONFIG} is broken ({error})") from error
  settings = config_lib.Settings.read(values)
  reader = safetensors_files.Reader(source)
  _check_dtypes(reader, values=values)
  layout = _layout(reader)
  widths = _widths(reader, layout=layout) if settings.vision else None
  fields = config_lib.architecture(settings, widths=widths)
  if layout is names_lib.Layout.MODULES:
    fields["num_mtp_layers"] = 0  # transformers keeps them apart
  if model_from_src:
    config = _with_model(config, settings=settings, fields=fields)
  else:
    _check_config(config, settings=settings, fields=fields)
  model = dataclasses.replace(
    config.model, vocab_size=settings.vocab_size, vocab_padding=0
  )
  rules = names_lib.rules(
    model,
    layout=layout,
    towers=settings.vision is not None,
    scan_layers=config.train.execution.scan_layers,
  )
  _check_tensors(reader, rules=rules)
  by_path = collections.defaultdict(list)
  for rule in rules:
    by_path[rule.path].append(rule)
  rows = settings.vocab_size if settings.ours else settings.text_vocab_size
  return Plan(
    config=config,
    reader=reader,
    rules=by_path,
    text_rows=rows,
    tokenizer=_tokenizer(source, given=tokenizer_file, config=config),
  )


def _tokenizer(
  source: safetensors_files.Source, *, given: str, config: Config
) -> bytes | None:
  """The content of the tokenizer's file, which fits; None where there is none.

  Raises:
    errors.UserError: it does not, or is broken.
  """
  if given:
    tokenizer_lib.load(given, config=config.streams)
    return pathlib.Path(given).read_bytes()
  for name in _TOKENIZERS:
    content = source.read(name)
    if content is not None:
      place = f"{source.path}/{name}"
      tokenizer_lib.of_content(content, path=place, config=config.streams)
      return content
  logging.warning(
    "%s has no %s: what the rows of the imported weights mean is not known."
    " Give it as --tokenizer=FILE, here or in every command",
    *(source.path, " nor ".join(_TOKENIZERS)),
  )
  return None


def _check_dtypes(
  reader: safetensors_files.Reader, *, values: dict[str, Any]
) -> None:
  """Tensors have the type that config.json names, or float32.

  Of two types with as many bytes the wrong one reads as other numbers.

  Raises:
    errors.UserError: naming some that have another.
  """
  named = values.get("dtype", values.get("torch_dtype"))
  known = {dtype.name: dtype for dtype in safetensors_files.DTYPES.values()}
  if named not in known:  # older files do not say
    return
  allowed = {known[named], np.dtype(np.float32)}
  wrong = [
    f"{name} is {entry.dtype}"
    for name, entry in reader.entries.items()
    if entry.dtype not in allowed
  ]
  if wrong:
    raise errors.UserError(
      f"{reader.source.path}: {_CONFIG} names {named}, and"
      f" {'; '.join(wrong[:_LISTED])} ({len(wrong)} tensors): copy it again"
    )


def _layout(reader: safetensors_files.Reader) -> names_lib.Layout:
  released = any(name.startswith("model.llm.") for name in reader.entries)
  layouts = names_lib.Layout
  return layouts.RELEASED if released else layouts.MODULES


def _widths(
  reader: safetensors_files.Reader, *, layout: names_lib.Layout
) -> tuple[int, ...]:
  """Of the hMLP, which config.json does not tell."""
  name = {
    names_lib.Layout.RELEASED: "model.visual.layers.linear_{}.weight",
    names_lib.Layout.MODULES: (
      "model.vision_tower.encoder_layers.{}.projection.weight"
    ),
  }[layout]
  names = [name.format(i) for i in range(3)]
  missing = [name for name in names if name not in reader.entries]
  if missing:
    raise errors.UserError(
      "; ".join([f"missing tensors: {', '.join(missing)}", *reader.problems])
    )
  return tuple(reader.entries[name].shape[0] for name in names)


def _with_model(
  config: Config,
  *,
  settings: config_lib.Settings,
  fields: dict[str, Any],
) -> Config:
  fields = fields | config_lib.vocabulary(settings)
  return dataclasses.replace(
    config,
    name=_NAME,
    model=dataclasses.replace(config.model, **fields),
    streams=dataclasses.replace(
      config.streams, text_vocab_size=settings.text_vocab_size
    ),
  )


def _check_config(
  config: Config,
  *,
  settings: config_lib.Settings,
  fields: dict[str, Any],
) -> None:
  problems = config_lib.differences(config.model, fields=fields)
  text_rows = config.streams.text_vocab_size
  if text_rows != settings.text_vocab_size:
    problems.append(
      f"streams.text_vocab_size is {text_rows}, the checkpoint's is"
      f" {settings.text_vocab_size}"
    )
  rows = settings.text_vocab_size + streams_config.CONTROL_ROWS
  if config.model.vocab_size < max(rows, settings.vocab_size):
    problems.append(
      f"model.vocab_size is {config.model.vocab_size}, the checkpoint has"
      f" {settings.vocab_size} rows and needs {rows} with the control tokens"
    )
  if problems:
    raise errors.UserError(
      f"--config is not the model of --src: {'; '.join(problems)}. Leave out"
      " --config to take the model from the checkpoint"
    )


def _check_tensors(
  reader: safetensors_files.Reader, *, rules: list[names_lib.Rule]
) -> None:
  """Raises one `errors.UserError` that lists all that is wrong."""
  expected = {rule.name: rule.shape for rule in rules}
  problems = list(reader.problems)
  missing = sorted(set(expected) - set(reader.entries))
  extra = sorted(set(reader.entries) - set(expected))
  shapes = [
    f"{name} is {reader.entries[name].shape}, {_CONFIG} gives {shape}"
    for name, shape in expected.items()
    if name in reader.entries and reader.entries[name].shape != shape
  ]
  if missing:
    problems.append(f"missing tensors: {', '.join(missing)}")
  if extra:
    problems.append(f"unexpected tensors: {', '.join(extra)}")
  if shapes:
    problems.append(f"shapes differ: {', '.join(shapes)}")
  if problems:
    raise errors.UserError(f"--src={reader.source.path}: {'; '.join(problems)}")


def run(planned: Plan, *, directory: pathlib.Path) -> str:
  """Writes the workdir; returns a line that says what was done.

  Args:
    planned: by `plan`.
    directory: proved by `destination.check`; appears at the end.
  """
  config = planned.config
  mesh = mesh_lib.create(config.mesh)
  abstract = state_lib.abstract(
    config,
    model=state_lib.create_model(config),
    optimizer=optim.create(config.train.optim, steps=config.train.steps),
    mesh=mesh,
  )
  flat = traverse_util.flatten_dict(abstract.variables)
  _check_rules(planned, flat=flat)
  fresh = _fresh(planned, abstract=abstract, flat=flat)
  leaves = {
    path: streamed.Later(
      struct=struct,
      load=lambda path=path, struct=struct: _load(
        planned, path=path, struct=struct, fresh=fresh.get(path)
      ),
    )
    for path, struct in flat.items()
  }
  first = jax.process_index() == 0
  if first:
    written = destination.partial(directory)
    workdir_lib.create(str(written), config)
    if planned.tokenizer is not None:
      run_tokenizer.keep(planned.tokenizer, run=written)
  else:
    written = directory.with_name(f".{directory.name}.partial")
  multihost_utils.sync_global_devices("import begins")
  streamed.save(
    written,
    variables={"router": {}} | traverse_util.unflatten_dict(leaves),
    step=int(workdir_lib.IMPORTED_STEP),
  )
  logging.info(
    "%d bytes read of %s",
    planned.reader.source.bytes_read,
    planned.reader.source.path,
  )
  if first:
    destination.finish(written, directory=directory)
  multihost_utils.sync_global_devices("import ends")
  made = sorted({"/".join(path[1:3]) for path in set(flat) - {*planned.rules}})
  return (
    f"{directory}: {len(planned.reader.entries)} tensors read into"
    f" {len(planned.rules)} parameters; initialised: {', '.join(made)}, rows"
    f" {planned.text_rows} to {config.model.vocab_size - 1} of the vocabulary;"
    f" {_said_of_tokenizer(planned)}"
  )


def _said_of_tokenizer(planned: Plan) -> str:
  if planned.tokenizer is None:
    return "no tokenizer came along: give --tokenizer=FILE to every command"
  name = tokenizer_lib.filename(planned.tokenizer)
  return f"the tokenizer came along as {name}"


def _check_rules(planned: Plan, *, flat: dict[Path, Any]) -> None:
  """The table of names against the model: a difference is our mistake."""
  for path, rules in planned.rules.items():
    for rule in rules:
      shape = list(flat[path].shape[len(rule.index) :])
      found = list(rule.dims.shape)
      if rule.vocabulary is not None:
        shape[rule.vocabulary] = found[rule.vocabulary]
      if shape != found:
        raise ValueError(f"{path} is {shape}, {rule.name} gives {found}")


def _fresh(
  planned: Plan, *, abstract: state_lib.Abstract, flat: dict[Path, Any]
) -> dict[Path, jax.Array | np.ndarray]:
  """What the source does not have, as a fresh run would begin with it.

  Whole parameters, and of the tables the rows behind the source's.
  """
  tails = {
    path: rules[0].vocabulary
    for path, rules in planned.rules.items()
    if rules[0].vocabulary is not None
  }
  mesh = next(iter(flat.values())).sharding.mesh
  everywhere = jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec())
  wanted = {
    path: everywhere if path in tails else struct.sharding
    for path, struct in flat.items()
    if path in tails or path not in planned.rules
  }

  def make(key):
    state = abstract.init(key)
    variables = traverse_util.flatten_dict(
      {"params": state.params, "router": state.router}
    )
    return {
      path: jax.lax.slice_in_dim(
        variables[path], planned.text_rows, None, axis=tails[path]
      )
      if path in tails
      else variables[path]
      for path in wanted
    }

  key = jax.random.key(planned.config.train.seed)
  made = jax.jit(make, out_shardings=wanted)(key)
  return {
    path: np.asarray(array.addressable_data(0)) if path in tails else array
    for path, array in made.items()
  }


def _load(
  planned: Plan,
  *,
  path: Path,
  struct: jax.ShapeDtypeStruct,
  fresh: jax.Array | np.ndarray | None,
) -> jax.Array:
  """One parameter on the mesh; this process reads its own slices once."""
  if path not in planned.rules:
    return fresh
  logging.log_every_n_seconds(logging.INFO, "reading %s", 10, "/".join(path))
  devices = collections.defaultdict(list)
  indices = struct.sharding.addressable_devices_indices_map(struct.shape)
  for device, index in indices.items():
    box = tuple(
      part.indices(size)[:2]
      for part, size in zip(index, struct.shape, strict=True)
    )
    devices[box].append(device)
  arrays = []
  for box, group in devices.items():
    part = _assemble(planned, path=path, box=box, fresh=fresh)
    arrays += [jax.device_put(part, device) for device in group]
  return jax.make_array_from_single_device_arrays(
    struct.shape, struct.sharding, arrays
  )


def _assemble(
  planned: Plan, *, path: Path, box: dims.Box, fresh: np.ndarray | None
) -> np.ndarray:
  """A box of one parameter, from all tensors that it comes from."""
  result = np.empty([high - low for low, high in box], np.float32)
  for rule in planned.rules[path]:
    depth = len(rule.index)
    outer, inner = box[:depth], list(box[depth:])
    if any(
      not low <= i < high
      for i, (low, high) in zip(rule.index, outer, strict=True)
    ):
      continue
    target = result[
      tuple(i - low for i, (low, _) in zip(rule.index, outer, strict=True))
    ]
    if rule.vocabulary is not None:
      dim, rows = rule.vocabulary, planned.text_rows
      low, high = inner[dim]
      cut = min(max(rows, low), high)
      inner[dim] = (low, cut)
      behind = [slice(None)] * len(inner)
      behind[dim] = slice(cut - low, None)
      tail = [slice(*pair) for pair in inner]
      tail[dim] = slice(max(low, rows) - rows, max(high, rows) - rows)
      target[tuple(behind)] = fresh[tuple(tail)]
      front = [slice(None)] * len(inner)
      front[dim] = slice(0, cut - low)
      target = target[tuple(front)]
    if target.size:
      _convert(planned.reader, rule=rule, box=tuple(inner), target=target)
  return result


def _convert(
  reader: safetensors_files.Reader,
  *,
  rule: names_lib.Rule,
  box: dims.Box,
  target: np.ndarray,
) -> None:
  """Fills `target` with a box of our view, a bounded piece at a time."""
  factor = rule.dims.foreign[0][0]
  axis = rule.dims.ours.index(factor) if factor in rule.dims.ours else 0
  low, high = box[axis]
  outer, _, _ = rule.dims.narrow(box)
  count = max(high - low, 1)
  rows = np.prod([b - a for a, b in outer], dtype=np.int64) / count
  step = max(
    1, int(_STEP_BYTES / (rows * reader.entries[rule.name].dtype.itemsize))
  )
  for first in range(low, high, step):
    last = min(first + step, high)
    piece = (*box[:axis], (first, last), *box[axis + 1 :])
    foreign, change, chosen = rule.dims.narrow(piece)
    data = reader.read(rule.name, box=foreign)
    place = [slice(None)] * len(box)
    place[axis] = slice(first - low, last - low)
    target[tuple(place)] = change.view(data)[dims.slices(chosen)]
