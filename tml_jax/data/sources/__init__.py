"""The sources that exist. Importing this package registers them all.

A new source is one file here and one line below.
"""

from tml_jax.data.sources import asterisk as asterisk
from tml_jax.data.sources import espeak as espeak
from tml_jax.data.sources import procedural as procedural
