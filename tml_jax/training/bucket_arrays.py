"""Teaches Orbax to write arrays to s3:// as it does to gs://.

For: `checkpoint`, before it opens a directory in a bucket. Not for: paths on
disks, which Orbax handles by itself. Start reading at `prepare`.

Orbax (0.12.8 was read) hands paths to Epath, which knows both kinds of bucket,
and arrays to TensorStore, which does too; but what stands between them knows
gs:// alone. Three of its functions are replaced here. Checked when it is done:
another release may have others, and then s3:// is refused.
"""

import os

from orbax.checkpoint import options as options_lib
from orbax.checkpoint._src.path import gcs_utils
from orbax.checkpoint._src.serialization import tensorstore_utils

from tml_jax import buckets, errors

# A folder is a checkpoint when COMMITTED is in it: nothing is renamed.
ATOMICITY = options_lib.AtomicityOptions(
  mode=options_lib.AtomicityMode.COMMIT_FILE
)
_RELEASES = ">=0.12.8,<0.13"  # as the extras s3 and gcs have it
_REPLACED = (
  (tensorstore_utils, "_use_gcs_driver"),
  (tensorstore_utils, "_normalize_path"),
  (gcs_utils, "get_kvstore_for_gcs"),
)


def prepare() -> None:
  """Replaces the functions; more than once does no harm.

  Raises:
    errors.UserError: Orbax has none of that name.
  """
  for module, name in _REPLACED:
    if not hasattr(module, name):
      raise errors.UserError(
        f"this orbax-checkpoint has no {name}, so that it cannot be taught"
        " buckets: pip install"
        f" 'orbax-checkpoint{_RELEASES}'"
      )
  tensorstore_utils._use_gcs_driver = buckets.is_url
  tensorstore_utils._normalize_path = _normalized
  gcs_utils.get_kvstore_for_gcs = buckets.spec


def _normalized(path: str) -> str:
  """Without what `os.path` would take out of a URL."""
  kind, separator, rest = path.rpartition("://")
  return f"{kind}{separator}{os.path.normpath(rest)}"
