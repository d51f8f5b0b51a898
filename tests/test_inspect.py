"""Exact parameter counts, their explanation in the docs, the command."""

import re

import pytest

from experiments import interaction
from tests import goldens
from tests.helpers import commands
from tml_jax import inspect


@pytest.fixture(scope="module")
def counts():
  return goldens.counts()


def test_the_published_counts(counts):
  headline = counts["tml_interaction_small"]["= text model"]
  assert headline.total == 276_240_214_570
  assert headline.active == 11_999_062_570
  assert f"{headline.total / 1e9:.2f}" == "276.24"
  assert f"{headline.active / 1e9:.2f}" == "12.00"
  shipped = counts["inkling_small_as_shipped"]["= Inkling's tensors"]
  assert f"{shipped.total / 1e9:.3f}" == "265.956"
  # The size of the published checkpoint, bfloat16.
  assert f"{531_912_898_740 / 2 / 1e9:.3f}" == "265.956"


def _symbols(size: str) -> dict[str, int]:
  """The letters of docs/parameters.md."""
  model = interaction.get_config(size).model
  text = goldens.PARAMETERS.read_text(encoding="utf-8")
  mtp = range(model.num_mtp_layers)
  result = {
    "g": sum(model.is_global(i) for i in range(model.num_layers)),
    "m": sum(not model.mtp_is_global(i) for i in mtp),
  }
  for letter, field in re.findall(r"`(\w)` \| `([\w.]+)`", text):
    value = model
    for part in field.split("."):
      value = getattr(value, part)
    result[letter] = value
  result["x"], result["y"], result["z"] = model.hmlp_widths
  return result


@pytest.mark.parametrize("size", goldens.COUNTED)
def test_every_formula_of_the_docs_gives_the_count(counts, size):
  text = goldens.PARAMETERS.read_text(encoding="utf-8")
  total_text, active_text = text.split("| active | formula |")
  row = re.compile(r"^\| ([^|*`]+) \| `([^`]+)` \|", re.MULTILINE)
  formulas = dict(row.findall(total_text))
  modules = [name for name in inspect.MODULES if not name.startswith("= ")]
  assert list(formulas) == modules
  symbols = _symbols(size)
  for module in modules:
    want = eval(formulas[module], {}, symbols)
    assert counts[size][module].total == want, module
  active = dict(row.findall(active_text))
  assert active.keys() == {"routed experts", "multi-token prediction"}
  for module in modules:
    want = eval(active.get(module, formulas[module]), {}, symbols)
    assert counts[size][module].active == want, module


def test_the_numbers_in_the_docs_are_current(counts):
  # To accept a change: python -m tests.goldens
  text = goldens.PARAMETERS.read_text(encoding="utf-8")
  assert goldens.with_counts(text, counts=counts) == text
  text = goldens.README.read_text(encoding="utf-8")
  everything = counts["tiny"]["= everything"]
  assert goldens.with_tiny_size(text, everything=everything) == text


def test_the_command_prints_both():
  result = commands.run(
    "-m",
    "tml_jax.inspect",
    "--config=experiments/interaction.py:tml_interaction_small",
    "--params",
    "--flat",
  )
  assert result.returncode == 0, result.stderr
  assert result.stdout.startswith(goldens.config_of("tml_interaction_small"))
  assert re.search(r"= text model +276\.240 +11\.999 +276,240,2", result.stdout)


def test_nothing_to_print_is_said():
  result = commands.run(
    "-m", "tml_jax.inspect", "--config=experiments/interaction.py:tiny"
  )
  assert result.returncode == 2
  assert "--params" in result.stderr
