"""The image is made of the versions that the tests last passed on."""

import re

from tests.helpers import commands

_PIN = re.compile(r"^([\w.-]+)==([^\s;]+)", re.MULTILINE)


def _pins(path: str) -> dict[str, str]:
  text = (commands.ROOT / path).read_text(encoding="utf-8")
  return {
    re.sub("[-_.]+", "-", name.lower()): version
    for name, version in _PIN.findall(text)
  }


def test_the_lock_holds_the_versions_of_the_constraints():
  locked = _pins("launch/gke/requirements.lock")
  tested = _pins("launch/constraints.txt")
  assert {"jax", "jaxlib", "libtpu", "setuptools"} <= locked.keys()
  for name in locked.keys() & tested.keys():
    assert locked[name] == tested[name], name


def test_every_file_of_the_lock_has_a_hash():
  text = (commands.ROOT / "launch/gke/requirements.lock").read_text("utf-8")
  pinned = re.split(r"\n(?=[\w.-]+==)", text)[1:]
  assert len(pinned) == len(_pins("launch/gke/requirements.lock"))
  assert all("--hash=sha256:" in each for each in pinned)
