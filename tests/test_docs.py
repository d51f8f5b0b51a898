"""The documents name only files, commands and flags that exist."""

import ast
import functools
import pathlib
import re

import pytest

from tml_jax.config import Config
from tml_jax.config import text as config_text

ROOT = pathlib.Path(__file__).parent.parent
DOCS = sorted(
  path.relative_to(ROOT).as_posix()
  for pattern in ("*.md", "docs/*.md", "experiments/*.md", "benchmarks/*.md")
  for path in ROOT.glob(pattern)
)
# Flags of other programs that a document shows.
FOREIGN = {
  "fix": "ruff",
  "help": "absl",
  "flagfile": "absl",
  "xla_force_host_platform_device_count": "XLA",
  "project": "Beam",
  "region": "Beam",
  "temp_location": "Beam",
  "sdk_container_image": "Beam",
  "flink_master": "Beam",
  "environment_type": "Beam",
  "location": "gcloud storage",
  "uniform-bucket-level-access": "gcloud storage",
  "enable-hierarchical-namespace": "gcloud storage",
  "implicit-dirs": "gcsfuse",
  "metadata-cache-ttl-secs": "gcsfuse",
  "logdir": "tensorboard",
  "node-locations": "gcloud container",
  "machine-type": "gcloud container",
  "tpu-topology": "gcloud container",
  "num-nodes": "gcloud container",
  "workload": "xpk",
  "cluster": "xpk",
  "tpu-type": "xpk",
  "num-slices": "xpk",
  "docker-image": "xpk",
  "max-restarts": "xpk",
  "root_dir": "Full-Duplex-Bench",
  "repo-type": "hf",
  "include": "hf",
  "local-dir": "hf",
  "task": "Full-Duplex-Bench",
  "command": "xpk",
}
PLACEHOLDER = "SECTION.FIELD"  # stands for any field of the config


@functools.cache
def _defined_flags() -> frozenset[str]:
  """First arguments of every flags.DEFINE_*, --config, flags of scripts."""
  names = {"config"}  # ml_collections defines it from a variable
  for path in (ROOT / "launch").rglob("*.sh"):
    parsed = re.search(
      r'^parse "(.*?)" \\?\n? *"(.*?)" "\$@"$',
      path.read_text(encoding="utf-8"),
      flags=re.MULTILINE | re.DOTALL,
    )
    if parsed is not None:
      names.update(" ".join(parsed.groups()).replace("\\", "").split())
  for folder in ("tml_jax", "benchmarks"):
    for path in (ROOT / folder).rglob("*.py"):
      for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if (
          isinstance(node, ast.Call)
          and isinstance(node.func, ast.Attribute)
          and node.func.attr.startswith("DEFINE_")
          and isinstance(node.args[0], ast.Constant)
        ):
          names.add(node.args[0].value)
  return frozenset(names)


def test_the_documents_are_there():
  assert {
    "README.md",
    "ARCHITECTURE.md",
    "CONTRIBUTING.md",
    "docs/add_a_data_source.md",
    "docs/parameters.md",
    "docs/run_on_tpu.md",
    "experiments/README.md",
    "benchmarks/README.md",
  } <= set(DOCS)


@pytest.mark.parametrize("name", DOCS)
def test_relative_links_point_to_files(name):
  text = (ROOT / name).read_text(encoding="utf-8")
  for target in re.findall(r"\]\(([^)#\s]+)[^)]*\)", text):
    if not re.match(r"[a-z]+:", target):
      assert (ROOT / name).parent.joinpath(target).exists(), target


@pytest.mark.parametrize("name", DOCS)
def test_files_in_backquotes_exist(name):
  text = (ROOT / name).read_text(encoding="utf-8")
  top = "tml_jax|tests|docs|launch|experiments|benchmarks"
  for path in re.findall(rf"`((?:{top})/[\w./]+)", text):
    assert list(ROOT.glob(path.rstrip("/").replace("NAME", "*"))), path


@pytest.mark.parametrize("name", DOCS)
def test_modules_and_flags_exist(name):
  text = (ROOT / name).read_text(encoding="utf-8")
  for module in re.findall(r"python -m ([\w.]+)", text):
    if module.split(".")[0] in ("tml_jax", "tests", "benchmarks", "launch"):
      source = ROOT.joinpath(*module.split("."))
      if source.is_dir():
        source = source / "__main__"
      source = source.with_suffix(".py")
      assert source.is_file(), module
      assert '__name__ == "__main__"' in source.read_text(encoding="utf-8")
  fields, defined = config_text.field_types(Config), _defined_flags()
  for flag in re.findall(r"(?<!-)--([a-zA-Z][\w.-]*\w)", text):
    field = flag.removeprefix("config.")
    if field != flag:
      assert field in fields or field == PLACEHOLDER, flag
    else:
      assert flag in defined | FOREIGN.keys(), flag


@pytest.mark.parametrize("name", DOCS)
def test_experiments_exist(name):
  from experiments import interaction

  text = (ROOT / name).read_text(encoding="utf-8")
  for size in re.findall(r"interaction\.py:(\w+)", text):
    assert size in interaction.SIZES


@pytest.mark.parametrize("name", [*DOCS, "results/README.md"])
def test_commits_are_named_by_seven_digits(name):
  text = (ROOT / name).read_text(encoding="utf-8")
  words = re.findall(r"(?<![\w.-])[0-9a-f]{5,40}(?![\w-])", text)
  hashes = [w for w in words if re.search("[a-f]", w) and re.search(r"\d", w)]
  assert {len(word) for word in hashes} <= {7}, hashes


def test_tables_of_benchmarks_name_their_commit():
  for path in (ROOT / "benchmarks").glob("*.md"):
    text = path.read_text(encoding="utf-8")
    sections = re.split(r"^## ", text, flags=re.MULTILINE)
    if path.name != "README.md":
      sections = [text]  # one command has made all of it
    for section in sections:
      if re.search(r"^\|", section, flags=re.MULTILINE):
        assert re.search(r"\b(at|of)\s+[0-9a-f]{7}\b", section), section[:60]


def test_readme_is_short():
  lines = (ROOT / "README.md").read_text(encoding="utf-8").splitlines()
  assert len(lines) <= 110


def test_no_file_names_the_directory_it_was_written_in():
  folders = ("tml_jax", "tests", "docs", "launch", "experiments", "benchmarks")
  files = [path for path in ROOT.iterdir() if path.is_file()]
  for folder in folders:
    files += [path for path in (ROOT / folder).rglob("*.*") if path.is_file()]
  for path in files:
    if path.suffix in (".py", ".md", ".sh", ".toml", ".txt"):
      assert f"{ROOT}/" not in path.read_text(encoding="utf-8"), path
