"""Tools, what runs them beside a session, and drawings.

A tool is one file here, or in a plugin, with `@tools.register` over a function
or a class that opens it; a flag that the file defines is the tool's own.
"""

from tml_jax import registry

TOOLS = registry.Registry("tool", packages=(__name__,))
register = TOOLS.register
