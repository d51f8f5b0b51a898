"""The voices that exist. Importing this package registers them all.

A new voice is one file here and one line below.
"""

from tml_jax.data.voices import asterisk as asterisk
from tml_jax.data.voices import espeak as espeak
from tml_jax.data.voices import procedural as procedural
