"""Small state files: written whole, read whatever a kill has left of them."""

import pytest

from tml_jax import files


def test_lines_after_one_that_was_cut_are_whole(tmp_path, caplog):
  path = tmp_path / "lines.jsonl"
  assert files.read_json_lines(path) == []
  files.append_line(path, line='{"a": 1}')
  with open(path, "a") as file:
    file.write('{"b": {"c": 2}')  # killed; a brace stands at its end
  files.append_line(path, line='{"d": 3}')
  assert files.read_json_lines(path) == [{"a": 1}, {"d": 3}]
  assert f"{path}:2 is cut or damaged" in caplog.text
  assert path.read_text().count("\n") == 3


@pytest.mark.parametrize(
  "content", [b"", b"{", b"[]", b"3", b"\xff\xfe", b"[" * 100_000]
)
def test_a_damaged_object_is_begun_anew(tmp_path, content, caplog):
  path = tmp_path / "state.json"
  assert files.read_json(path) is None and not caplog.text
  path.write_bytes(content)
  assert files.read_json(path) is None
  assert "begun anew" in caplog.text
