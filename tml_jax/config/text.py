"""A config as plain dicts and as flat text, `a.b.c = value` per line.

For: config.txt of a run, goldens, diffs, and the way from untyped values back
to frozen dataclasses. Not for: flags (config/flags.py). Start reading at
`to_text` and `from_text`, which are inverse to each other.
"""

import ast
import dataclasses
import enum
import hashlib
import math
import types
import typing
from typing import Any, TypeGuard

from tml_jax import errors, files
from tml_jax.config import Config

FILE_NAME = "config.txt"


def field_types(cls: type) -> dict[str, Any]:
  """Type of every leaf of a config dataclass by dotted path, sorted."""
  result = {}
  for field in dataclasses.fields(cls):
    if _is_section(field.type):
      for name, leaf_type in field_types(field.type).items():
        result[f"{field.name}.{name}"] = leaf_type
    else:
      result[field.name] = field.type
  return dict(sorted(result.items()))


def _is_section(field_type: Any) -> TypeGuard[type]:
  return dataclasses.is_dataclass(field_type)


def describe_type(field_type: Any) -> str:
  """In words, for an error message."""
  if isinstance(field_type, type) and issubclass(field_type, enum.Enum):
    return "one of " + ", ".join(member.value for member in field_type)
  if isinstance(field_type, types.GenericAlias):
    item_types = typing.get_args(field_type)
    count = "any number of" if item_types[-1] is Ellipsis else len(item_types)
    return f"{count} items of type {item_types[0].__name__}, A,B,C"
  return {
    bool: "true or false",
    int: "an integer",
    float: "a number",
    str: "a string",
  }[field_type]


def to_dict(config: Any) -> dict[str, Any]:
  """Nested dict of plain fields; enums stay enums (they are strings)."""
  return {
    field.name: to_dict(value) if dataclasses.is_dataclass(value) else value
    for field in dataclasses.fields(config)
    for value in [getattr(config, field.name)]
  }


def flatten(config: Any) -> dict[str, Any]:
  """Leaves by dotted path, sorted."""
  result = {}
  for name in field_types(type(config)):
    value = config
    for part in name.split("."):
      value = getattr(value, part)
    result[name] = value
  return result


def from_dict(cls: type, values: dict[str, Any], *, prefix: str = "") -> Any:
  """Builds the dataclass `cls`, every value checked against its type."""
  fields = {field.name: field.type for field in dataclasses.fields(cls)}
  unknown = sorted(values.keys() - fields.keys())
  missing = sorted(fields.keys() - values.keys())
  if unknown or missing:
    raise errors.UserError(
      f"{prefix or 'the config '}has unknown fields {unknown} and lacks"
      f" {missing}: it was written by another version of this code"
    )
  return cls(
    **{
      name: from_dict(field_type, values[name], prefix=f"{prefix}{name}.")
      if _is_section(field_type)
      else _typed(values[name], field_type=field_type, name=prefix + name)
      for name, field_type in fields.items()
    }
  )


def with_fields(config: Any, changes: dict[str, Any]) -> Any:
  """A copy with the fields at dotted paths changed, all at once.

  Raises:
    errors.UserError: no such field, or a value that cannot work.
  """
  values = to_dict(config)
  for path, value in changes.items():
    if path not in field_types(type(config)):
      raise errors.UserError(f"the config has no field {path!r}")
    *sections, leaf = path.split(".")
    node = values
    for section in sections:
      node = node[section]
    node[leaf] = value
  return from_dict(type(config), values)


def as_flag(path: str, value: Any) -> str:
  """`--config.PATH=VALUE` as the command line takes it."""
  if isinstance(value, tuple):
    value = ",".join(str(item) for item in value)
  return f"--config.{path}={value}"


def _typed(value: Any, *, field_type: Any, name: str) -> Any:
  """`value` as `field_type`; an integer may stand for a float."""
  error = errors.UserError(
    f"{name} = {value!r}: it takes {describe_type(field_type)}"
  )
  if isinstance(field_type, types.GenericAlias):
    item_types = typing.get_args(field_type)
    if not isinstance(value, tuple):
      raise error
    if item_types[-1] is Ellipsis:
      item_types = item_types[:1] * len(value)
    if len(item_types) != len(value):
      raise error
    return tuple(
      _typed(item, field_type=item_type, name=name)
      for item, item_type in zip(value, item_types, strict=True)
    )
  if issubclass(field_type, enum.Enum):
    try:
      return field_type(value)
    except ValueError:
      raise error from None
  if field_type is float and type(value) is int:
    return float(value)
  if type(value) is not field_type:
    raise error
  if field_type is float and not math.isfinite(value):
    raise errors.UserError(f"{name} = {value!r}: it takes a finite number")
  return value


def to_text(config: Any) -> str:
  """Flat text, sorted; Python literals on the right."""
  return "".join(
    f"{name} = {_literal(value)}\n" for name, value in flatten(config).items()
  )


def digest(config: Any) -> str:
  """Names the values of a config: 16 hexadecimal digits."""
  return hashlib.sha256(to_text(config).encode()).hexdigest()[:16]


def _literal(value: Any) -> str:
  return repr(value.value if isinstance(value, enum.Enum) else value)


def from_text(text: str, *, source: str, config_type: type = Config) -> Any:
  """Inverse of `to_text`; `source` names the file in errors."""
  flat: dict[str, Any] = {}
  for number, line in enumerate(text.splitlines(), start=1):
    name, separator, literal = line.partition(" = ")
    try:
      value = ast.literal_eval(literal)
    except (SyntaxError, ValueError, RecursionError, MemoryError):
      separator = ""
    if not separator:
      raise errors.UserError(
        f"{source}:{number}: expected `a.b.c = value`, found {line!r}"
      )
    flat[name] = value
  unknown = sorted(flat.keys() - field_types(config_type).keys())
  missing = sorted(field_types(config_type).keys() - flat.keys())
  if unknown or missing:
    raise errors.UserError(
      f"{source} has unknown fields {unknown} and lacks {missing}: it was"
      " written by another version of this code, or cut short"
    )
  values: dict[str, Any] = {}
  for name, value in flat.items():
    *sections, leaf = name.split(".")
    node = values
    for section in sections:
      node = node.setdefault(section, {})
    node[leaf] = value
  return from_dict(config_type, values)


def load(path: str, *, config_type: type = Config) -> Any:
  """Reads the config.txt of a run."""
  try:
    text = files.path(path).read_text(encoding="utf-8")
  except OSError as error:
    raise errors.UserError(
      f"cannot read {path}: {error.strerror or error}; is it in the directory"
      " of a run?"
    ) from error
  except UnicodeDecodeError as error:
    raise errors.UserError(f"{path} is no text: {error}") from error
  return from_text(text, source=path, config_type=config_type)


def diff(old: Any, *, new: Any) -> dict[str, str]:
  """Changed fields by dotted path, each "old -> new"."""
  before, after = flatten(old), flatten(new)
  return {
    name: f"{_literal(before[name])} -> {_literal(after[name])}"
    for name in before
    if before[name] != after[name]
  }
