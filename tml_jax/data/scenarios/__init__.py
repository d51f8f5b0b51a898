"""Families of synthetic conversations, composed from the prepared voices.

A family is a subclass of `family.Family` with a `name`, in a file of its own
here or in a plugin; nothing else lists it. Start reading at `family`.
"""

from typing import Any

from tml_jax import registry

ALL = "all"  # every family, in config.data.mixture
# Of `type[family.Family]`, which imports this package.
FAMILIES: registry.Registry[Any] = registry.Registry(
  "scenario family", packages=(__name__,)
)
