"""What the checks of all sections share.

For: the dataclasses of `tml_jax.config` and `vocoder.config`, which check
themselves when they are built. Not for: any one check, which stands beside its
field. Every message names the field, the value and the fix.
"""

from typing import Any

from tml_jax import errors

MAX_SEED = 2**32 - 1  # jax.random.key drops what is above


def require(holds: bool, message: str) -> None:
  """Raises `errors.UserError` with `message` unless it holds."""
  if not holds:
    raise errors.UserError(message)


def require_range(
  config: Any,
  *,
  section: str,
  names: str,
  low: float,
  high: float = float("inf"),
) -> None:
  """Each field named in `names` (space-separated) is in [low, high]."""
  for name in names.split():
    value = getattr(config, name)
    limit = f"at least {low}" + (f", at most {high}" if high < 1e30 else "")
    require(low <= value <= high, f"{section}.{name} = {value}: {limit}")


def require_positive(config: Any, *, section: str, names: str) -> None:
  """Each field named in `names` (space-separated) is above 0."""
  for name in names.split():
    value = getattr(config, name)
    require(value > 0, f"{section}.{name} = {value}: must be above 0")
