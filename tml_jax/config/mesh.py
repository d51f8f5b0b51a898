"""The mesh: axes, what lies on them, and how XLA compiles for it.

For: `MeshConfig`. Not for: choosing rules and sizes
(`experiments/topologies.py`), nor making a mesh (`parallel/mesh.py`).
"""

import dataclasses
import re

from tml_jax.config import checks

AXES = ("data", "fsdp", "expert", "tensor", "seq")


# Options of XLA that stand in a config: values that are no place in a file
# system, and none of those whose value would be taken for one.
_OPTION = r"\w+=(true|false|-?\d+(\.\d+)?|[A-Z][A-Z_]*)"
_PLACE = r"dump|_(to|from|file|path|dir|directory|cache)$"


@dataclasses.dataclass(frozen=True, kw_only=True)
class MeshConfig:
  """The mesh: axes, what lies on them, and how XLA compiles for it.

  The product of the five sizes must be the device count. Without rules only
  a mesh of one device can be made.
  """

  data: int
  fsdp: int
  expert: int
  tensor: int
  seq: int
  slices: int = 1  # `data` crosses the network between them
  rules: tuple[str, ...] = ()  # "logical name:axis+axis"
  compiler_options: tuple[str, ...] = ()  # "xla_flag=value"

  @property
  def axis_rules(self) -> dict[str, tuple[str, ...]]:
    """Mesh axes by logical name, as `rules` gives them."""
    entries = (entry.partition(":") for entry in self.rules)
    return {name: tuple(axes.split("+")) for name, _, axes in entries}

  @property
  def compiler_flags(self) -> dict[str, str | bool]:
    """Value by XLA flag, as `compiler_options` gives them."""
    # Some of XLA's flags take "true" as a string, all take True.
    words = {"true": True, "false": False}
    pairs = (entry.split("=", 1) for entry in self.compiler_options)
    return {name: words.get(value, value) for name, value in pairs}

  def __post_init__(self) -> None:
    axes = " ".join(AXES)
    checks.require_range(self, section="mesh", names=f"{axes} slices", low=1)
    for entry in self.rules:
      name, _, targets = entry.partition(":")
      checks.require(
        name != "" and set(targets.split("+")) <= set(AXES),
        f"mesh.rules entry {entry!r}: write NAME:AXIS or NAME:AXIS+AXIS with"
        f" axes of {axes}, for instance batch:data+fsdp",
      )
    checks.require(
      len(self.axis_rules) == len(self.rules),
      f"mesh.rules = {self.rules}: a logical name has two rules",
    )
    for entry in self.compiler_options:
      checks.require(
        re.fullmatch(_OPTION, entry) is not None,
        f"mesh.compiler_options entry {entry!r}: write FLAG=VALUE with true,"
        " false, a number or a WORD, for instance"
        " xla_tpu_enable_latency_hiding_scheduler=true",
      )
      checks.require(
        re.search(_PLACE, entry.partition("=")[0]) is None,
        f"mesh.compiler_options entry {entry!r}: a config, which may be"
        " somebody else's, names no files; set it in $XLA_FLAGS",
      )


# A mesh of one device without rules.
ONE_DEVICE = MeshConfig(data=1, fsdp=1, expert=1, tensor=1, seq=1)
