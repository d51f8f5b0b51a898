"""The page of corpora: what is on it, and what is refused."""

import re

import pytest

from tests.helpers import commands, pages, recorded
from tml_jax import errors
from tml_jax.data import corpus
from tml_jax.page import choose, recording, write
from tml_jax.streams import tokenizer
from tml_jax.streams.document import Document


@pytest.fixture(scope="module")
def root(tmp_path_factory):
  root = tmp_path_factory.mktemp("page")
  hostile = (pages.HOSTILE, "<img/src=//evil.example/x>", "a\x1b[31m\nb")
  recorded.write(
    root,
    calls=[
      pages.talk("short", seconds=4.0),
      pages.talk(
        pages.HOSTILE, seconds=5.5, words=hostile, video=4, events=hostile
      ),
      pages.talk("middle", seconds=5.0),
      pages.talk("long", seconds=9.0, words=("yes",) * 12),
      pages.talk("77", seconds=6.0),
    ],
    texts=[
      Document(f"t{i}", f"{pages.HOSTILE} line " * i, {"kind": "document"})
      for i in (1, 5, 2)
    ],
  )
  return root


@pytest.fixture(scope="module")
def config():
  return pages.config("calls:1")


def _write(root, config, out, *names, wanted=(), seconds=60.0):
  file = write.data_page(
    [str(root / name) for name in names],
    config=config,
    tokenizer_file=tokenizer.path(root),
    wanted=wanted,
    seconds=seconds,
    out=out,
  )
  return file.read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def text(root, config, tmp_path_factory):
  out = tmp_path_factory.mktemp("out")
  return _write(root, config, out, "calls", "texts")


def test_names_and_words_of_others_are_text(text):
  pages.check_harmless(text)
  assert pages.HOSTILE not in text
  shown = "".join(e.text for e in pages.read(text) if e.tag == "main")
  assert pages.HOSTILE in shown  # what was said can be read
  assert "<img/src=//evil.example/x>" in shown
  assert "\x1b" not in text


def test_the_few_that_differ_are_shown(text):
  titles = [e.text for e in pages.read(text) if e.tag == "h2"]
  assert titles == [
    "Corpus calls",
    "Corpus texts",
    "calls: short",
    f"calls: {pages.HOSTILE}",
    "calls: long",
    "calls: 77",
    "texts: t1",
    "texts: t2",
    "texts: t5",
  ]
  shown = pages.facts(text)
  assert shown["shown because it is"] == [
    "the shortest",
    "the median",
    "the longest, the most overlap",
    "the most silence",
    "the shortest",
    "the median",
    "the longest",
  ]
  assert shown["seconds"] == ["4.00", "5.50", "9.00", "6.00"]
  assert shown["windows shown"] == ["20", "28", "45", "30"]


def test_a_recording_has_its_sound_pictures_and_windows(root, config, tmp_path):
  text = _write(root, config, tmp_path, "calls", wanted=["1"])
  elements = pages.read(text)
  players = [e for e in elements if e.tag == "audio"]
  assert len(players) == 3
  for player in players:
    assert player.attributes["src"].startswith("data:audio/ogg;base64,")
  lanes = [e.text for e in elements if e.tag == "text" and "x" in e.attributes]
  assert {"sees", "user says", "typed, notes", "agent says"} <= {*lanes}
  images = [e for e in elements if e.tag == "image"]
  jpeg = [e for e in images if e.attributes["href"].startswith("data:image/j")]
  assert len(jpeg) == 4 and len(images) == 6  # and two of mel
  assert "window 11, 2.20 s" in text
  assert "the sound of the next window" in text
  assert "\\u003cspeak\\u003e" in text


def test_seconds_bound_what_is_shown(root, config, tmp_path):
  text = _write(root, config, tmp_path, "calls", wanted=["long"], seconds=3.0)
  shown = pages.facts(text)
  assert shown["windows shown"] == ["15"]
  assert shown["seconds shown"] == ["3.00"] and shown["seconds"] == ["9.00"]


def test_the_same_data_give_the_same_page(root, config, tmp_path):
  one = _write(root, config, tmp_path, "calls", wanted=["short"])
  assert one == _write(root, config, tmp_path, "calls", wanted=["short"])


def test_an_id_comes_before_a_number(root):
  sources = {"calls": corpus.RecordSource(root / "calls")}
  (found,) = choose.asked(["77"], sources=sources)
  assert found.number == 4
  (found,) = choose.asked(["calls:3"], sources=sources)
  assert found.number == 3


def test_unknown_recordings_are_told_with_near_ones(root):
  sources = {
    name: corpus.RecordSource(root / name) for name in ("calls", "texts")
  }
  with pytest.raises(errors.UserError, match="did you mean 'middle'"):
    choose.asked(["midle"], sources=sources)
  with pytest.raises(errors.UserError, match="texts has the numbers 0 to 2"):
    choose.asked(["5000"], sources=sources)
  with pytest.raises(errors.UserError, match="--recording=calls:0 or"):
    choose.asked(["0"], sources=sources)
  with pytest.raises(errors.UserError, match="no such id"):
    choose.asked(["texts:short"], sources=sources)


def test_what_is_no_corpus_is_refused(root, config, tmp_path):
  with pytest.raises(errors.UserError, match="no such folder"):
    write.open_corpora([str(root / "none")], config=config)
  with pytest.raises(errors.UserError, match="it holds corpora: give --data="):
    write.open_corpora([str(root)], config=config)
  (tmp_path / "new" / "units").mkdir(parents=True)
  with pytest.raises(errors.UserError, match="is not finished"):
    write.open_corpora([str(tmp_path / "new")], config=config)
  with pytest.raises(errors.UserError, match="is no corpus"):
    write.open_corpora([str(tmp_path)], config=config)
  with pytest.raises(errors.UserError, match="two corpora are named calls"):
    write.open_corpora([str(root / "calls")] * 2, config=config)


def test_a_damaged_recording_ends_before_the_page(root, config, tmp_path):
  copy = tmp_path / "calls"
  corpus.write([pages.talk("a"), pages.talk("b")], path=copy)
  index = corpus.read_index(copy)
  shard = copy / index.shards[0].file
  content = bytearray(shard.read_bytes())
  content[content.index(b"fLaC") + 20] ^= 0xFF
  shard.write_bytes(bytes(content))
  with pytest.raises(corpus.DamagedRecord, match="is corrupt"):
    write.data_page(
      [str(copy)],
      config=config,
      tokenizer_file=tokenizer.path(root),
      wanted=(),
      seconds=60.0,
      out=tmp_path,
    )
  assert not (tmp_path / write.DATA).exists()


def test_a_token_of_a_document_can_be_told_from_the_next(root, config):
  pieces = tokenizer.load(tokenizer.path(root), config=config.streams)
  tokens = pieces.encode("yes yes")
  spelled = [
    recording.piece(each, config=config, tokenizer=pieces) for each in tokens
  ]
  assert all(each.endswith("·") for each in spelled)
  assert re.sub("[· ]", "", "".join(spelled)) == "yesyes"


def _inspect(*flags):
  return commands.run("-m", "tml_jax.inspect", *flags)


def test_the_command_needs_no_config(root, tmp_path):
  # The video of `tiny` has another size than that of these calls.
  result = _inspect(f"--data={root / 'texts'}", f"--out={tmp_path}")
  assert result.returncode == 0, result.stderr
  assert result.stdout == f"wrote {tmp_path / write.DATA}\n"
  pages.check_harmless((tmp_path / write.DATA).read_text(encoding="utf-8"))


@pytest.mark.parametrize(
  ("flags", "want"),
  [
    (["--data={root}/texts"], "--out is missing"),
    (["--data={root}/texts", "--out={root}/tokenizer.model/x"], "be written"),
    (["--data={root}/none", "--out={root}/out"], "no such folder"),
    (
      ["--recording=3", "--config=experiments/interaction.py:tiny", "--params"],
      "--data=DATA/calls",
    ),
    (
      ["--batch=1", "--workdir={root}", "--data_dir={root}"],
      "give the directory of a run",
    ),
  ],
)
def test_bad_input_of_the_command_is_one_line(root, flags, want):
  result = _inspect(*(flag.format(root=root) for flag in flags))
  assert result.returncode == 2, result.stderr
  line = result.stderr.strip().splitlines()[-1]
  assert want in line and "Traceback" not in result.stderr
