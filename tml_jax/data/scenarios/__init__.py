"""Families of synthetic conversations, composed from the prepared voices.

A family is a subclass of `family.Family` with a `name`, in a file of its own
here or in a plugin; nothing else lists it. Start reading at `family`.
"""

from typing import TYPE_CHECKING

from tml_jax import registry

if TYPE_CHECKING:
  from tml_jax.data.scenarios import family

ALL = "all"  # every family, in config.data.mixture
FAMILIES: "registry.Registry[type[family.Family]]" = registry.Registry(
  "scenario family", packages=(__name__,)
)
