"""Changes of recordings that are trained on, drawn anew in every epoch.

A transform is a subclass of `transform.Transform` under `@TRANSFORMS.register`,
in a file here or in a plugin; nothing else lists it. Start reading at `chain`,
which applies them; docs/augmentation.md has a table.
"""

from typing import Any

from tml_jax import registry

# Of `type[transform.Transform]`, which imports this package.
TRANSFORMS: registry.Registry[Any] = registry.Registry(
  "transform of data.augment", packages=(__name__,)
)
