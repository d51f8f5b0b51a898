"""What scripts find in the package by its name."""

from tests.helpers import commands
from tml_jax.interop.inkling import model

_SCRIPT = """
import sys
from tml_jax.interop import inkling
assert "jax" not in sys.modules  # a command of the package starts so
from tml_jax.interop.inkling import from_hf, text_logits, multimodal_logits
import tml_jax.interop.inkling
print(tml_jax.interop.inkling.from_hf.__module__)
try:
  inkling.from_hg
except AttributeError as error:
  print(error)
"""


def test_functions_of_the_model_are_there_and_start_no_jax():
  result = commands.run("-c", _SCRIPT)
  assert result.returncode == 0, result.stderr
  assert result.stdout.splitlines() == [
    model.__name__,
    "module 'tml_jax.interop.inkling' has no attribute 'from_hg'",
  ]
