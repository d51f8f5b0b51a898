"""Files of both kinds against the libraries that made them."""

import dataclasses
import json

import hypothesis
import numpy as np
import pytest
import sentencepiece
import tokenizers
from hypothesis import strategies as st
from tokenizers import decoders, models, normalizers, pre_tokenizers, trainers

from tests.helpers import frames as small_frames
from tests.helpers import hugging_face as hf_files
from tml_jax import errors
from tml_jax.streams import framing, tokenizer
from tml_jax.streams.frame import Control
from tml_jax.streams.timeline import Role, Timeline, Track, Word

_CONFIG = dataclasses.replace(small_frames.CONFIG, text_vocab_size=400)
# What somebody would try, and letters that normal forms and byte-level
# alphabets change.
_ATTACKS = [
  *(hf_files.END, hf_files.BEGIN, hf_files.END[:5], hf_files.END[5:]),
  *(f"<{control.name.lower()}>" for control in Control),
  *("<s>", "</s>", "<unk>", "<pad>", "<0x00>", "Ġ", "Ċ", "▁", "[UNK]"),
  *(" ", "  ", "\n", "\r\n", "\t", "\0", "e\u0301", "é", "☕", "\U0001f40c"),
]
_TEXT = st.text(max_size=40) | st.lists(
  st.sampled_from(_ATTACKS) | st.text(max_size=3), max_size=8
).map("".join)


@pytest.fixture(scope="module")
def byte_level(tmp_path_factory):
  path = tmp_path_factory.mktemp("hf") / "tokenizer.json"
  made = hf_files.write(path)
  return tokenizer.load(str(path), config=_CONFIG), made


@hypothesis.given(_TEXT)
@hypothesis.example(hf_files.END)
@hypothesis.example(f"{hf_files.BEGIN} {hf_files.BEGIN}{hf_files.END}")
@hypothesis.example("<call> <end>")
def test_ids_are_the_librarys_and_never_special(byte_level, text):
  ours, made = byte_level
  ids = ours.encode(text)
  special = {made.token_to_id(t) for t in (hf_files.END, hf_files.BEGIN)}
  assert special.isdisjoint(ids)
  assert all(0 <= i < ours.num_pieces <= _CONFIG.text_vocab_size for i in ids)
  assert ours.decode(ids) == text
  if text and hf_files.END not in text and hf_files.BEGIN not in text:
    assert ids == made.encode(f" {text}", add_special_tokens=False).ids


def test_the_vocabulary_ends_before_special_tokens_at_its_end(byte_level):
  ours, made = byte_level
  end = made.token_to_id(hf_files.END)
  assert end == made.get_vocab_size() - 1 == ours.num_pieces
  assert made.token_to_id(hf_files.BEGIN) == 0
  # What a model may still emit of them is no text.
  ids = ours.encode("press one")
  assert ours.decode([0, *ids, end]) == "press one"
  for wrong in (-1, end + 1):
    with pytest.raises(IndexError):
      ours.decode([wrong])


def test_words_of_say_text_are_those_of_the_sentence(byte_level):
  """Framing spells each word alone."""
  ours, made = byte_level
  words = "press one to repeat the café".split()
  spelled = [i for word in words for i in ours.encode(word)]
  assert spelled == made.encode(" press one to repeat the café").ids
  assert ours.decode(spelled) == "press one to repeat the café"
  said = tuple(Word(i / 5, i / 5 + 0.1, word) for i, word in enumerate(words))
  track = Track(Role.AGENT, np.zeros(32_000, np.float32), said, (), "v")
  frames = framing.frames(
    Timeline(id="x", duration=2.0, tracks=(track,)),
    config=_CONFIG,
    tokenizer=ours,
  )
  assert [i for frame in frames for i in frame.say] == spelled


def test_sentencepiece_ids_are_the_librarys(tmp_path):
  path = str(tmp_path / "tokenizer.model")
  ours = tokenizer.train(hf_files.LINES * 9, path=path, config=_CONFIG)
  theirs = sentencepiece.SentencePieceProcessor(model_file=path)
  for text in ("press one to repeat", "☕ <s>", "a  b", "naïve " * 40):
    assert ours.encode(text) == theirs.encode(f" {text}")
    assert ours.encode(text) == ours.encode(text)  # remembered


def test_a_result_may_be_changed_by_who_asked(byte_level):
  ours, _ = byte_level
  first = ours.encode("press")
  first.append(7)
  assert ours.encode("press") == first[:-1]


def test_models_that_write_the_first_space_themselves(tmp_path):
  """As those of Llama 2, in both formats: one space, not two."""
  path = tmp_path / "own.model"
  with open(path, "wb") as file:
    sentencepiece.SentencePieceTrainer.train(
      sentence_iterator=iter(hf_files.LINES * 9),
      model_writer=file,
      vocab_size=320,
      hard_vocab_limit=False,
      byte_fallback=True,
      normalization_rule_name="identity",
      remove_extra_whitespaces=False,
      minloglevel=2,
    )
  made = tokenizers.Tokenizer(models.BPE(byte_fallback=True))
  made.normalizer = normalizers.Sequence(
    [normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")]
  )
  made.decoder = decoders.Sequence(
    [
      decoders.Replace("▁", " "),
      decoders.ByteFallback(),
      decoders.Fuse(),
      decoders.Strip(" ", 1, 0),
    ]
  )
  made.train_from_iterator(
    [line.replace(" ", "▁") for line in hf_files.LINES * 9],
    trainers.BpeTrainer(
      vocab_size=390,
      special_tokens=[f"<0x{byte:02X}>" for byte in range(256)],
      show_progress=False,
    ),
  )
  json_path = tmp_path / "tokenizer.json"
  values = json.loads(made.to_str()) | {"added_tokens": []}  # bytes are text
  json_path.write_text(json.dumps(values))
  for file in (path, json_path):
    ours = tokenizer.load(str(file), config=_CONFIG)
    words = "press one to repeat".split()
    spelled = [i for word in words for i in ours.encode(word)]
    assert ours.decode(spelled) == "press one to repeat", file
    for text in (" press", "press  one ", "a"):
      assert ours.decode(ours.encode(text)) == text, file


def test_what_a_file_asks_for_is_not_done_to_text(tmp_path, byte_level):
  """Neither cut, filled up, wrapped nor spelled at random."""
  ours, made = byte_level
  path = tmp_path / "tokenizer.json"
  values = json.loads(made.to_str())
  values["model"]["dropout"] = 0.9
  made = tokenizers.Tokenizer.from_str(json.dumps(values))
  made.enable_truncation(4)
  made.enable_padding(length=64, pad_id=0, pad_token=hf_files.BEGIN)
  made.post_processor = tokenizers.processors.TemplateProcessing(
    single=f"{hf_files.BEGIN} $A", special_tokens=[(hf_files.BEGIN, 0)]
  )
  made.save(str(path))
  other = tokenizer.load(str(path), config=_CONFIG)
  for text in ("press one to repeat the message", "press " * 30):
    assert other.encode(text) == ours.encode(text)


def test_a_piece_that_is_a_special_token_is_spelled_in_letters(tmp_path):
  """Where the model takes whole words first, a word can be one."""
  made = hf_files.byte_level()
  values = json.loads(made.to_str())
  values["model"]["ignore_merges"] = True
  values["model"]["vocab"]["Ġ<s>"] = 320
  values["added_tokens"].append(
    dict(values["added_tokens"][0], id=320, content="Ġ<s>")
  )
  values["pre_tokenizer"] |= {"use_regex": False}
  path = tmp_path / "tokenizer.json"
  path.write_text(json.dumps(values))
  ours = tokenizer.load(str(path), config=_CONFIG)
  raw = tokenizers.Tokenizer.from_file(str(path))
  raw.encode_special_tokens = True
  assert raw.encode(" <s>").tokens == ["Ġ<s>"]  # what is to be prevented
  assert 320 not in ours.encode("<s>")
  assert ours.decode(ours.encode("<s>")) == "<s>"


def test_gaps_and_added_tokens(tmp_path, caplog):
  """Ids with gaps, and an added token that is text, as the file says."""
  values = json.loads(hf_files.byte_level().to_str())
  vocabulary = values["model"]["vocab"]
  last = max(vocabulary, key=vocabulary.get)
  vocabulary[last] = 340
  added = dict(values["added_tokens"][0], special=False)
  values["added_tokens"] += [
    dict(added, id=350, content="repeat after me"),
    dict(added, id=377, content="<think>"),
  ]
  path = tmp_path / "tokenizer.json"
  path.write_text(json.dumps(values))
  ours = tokenizer.load(str(path), config=_CONFIG)
  assert ours.num_pieces == 378
  ids = ours.encode("please repeat after me now")
  assert 350 in ids and ours.decode(ids) == "please repeat after me now"
  assert ours.decode([*ids[:3], 360, *ids[3:]]) == ours.decode(ids)  # a gap
  assert 377 in ours.encode("<think>") and 340 in ours.encode(
    last.replace("Ġ", "").replace("âĺķ", "☕")
  )
  assert "changes text" not in caplog.text
  small = dataclasses.replace(_CONFIG, text_vocab_size=377)
  with pytest.raises(errors.UserError, match="378 tokens, more than .* = 377"):
    tokenizer.load(str(path), config=small)


@pytest.mark.parametrize(
  "changes",
  [
    {"normalizer": {"type": "NFC"}},
    {"decoder": None},
    {
      "model": {
        "type": "WordLevel",
        "vocab": {"[UNK]": 0, "one": 1, "two": 2},
        "unk_token": "[UNK]",
      },
      "pre_tokenizer": {"type": "Whitespace"},
      "decoder": None,
      "added_tokens": [],
    },
  ],
)
def test_one_that_changes_text_is_reported_once(changes, tmp_path, caplog):
  path = tmp_path / "tokenizer.json"
  hf_files.write(path, **changes)
  for _ in range(2):
    ours = tokenizer.load(str(path), config=_CONFIG)
  assert caplog.text.count("changes text") == 1
  assert all(0 <= i < ours.num_pieces for i in ours.encode("one three [UNK]"))


_BAD = [
  (b"", "the file is empty"),
  (b"these are words", "not a sentencepiece model, nor JSON"),
  (b"\xff\xfe\x00", "not a sentencepiece model, nor JSON"),
  (b'{"model": {"type": "BPE", "vocab": {"a"', r"Hugging Face \(Expecting"),
  (b"{}", "it has no model"),
  (b"[]", "it has no model"),
  (b'{"model": 3}', "it has no model"),
  (b"[" * 100_000, "Hugging Face"),
  (b'{"model": {"type": "Spelling"}}', "'Spelling' is unknown: one of BPE"),
  (b'{"model": {"type": ["BPE"]}}', "is unknown: one of BPE"),
  (b'{"model": {"type": "BPE"}}', "Hugging Face"),
  (b'{"model": {"type": "WordLevel", "vocab": {}}}', "Hugging Face"),
  (b'{"a": "\xff"}', "Hugging Face"),
  (
    b'{"version": "1.0", "model": {"type": "WordLevel", "unk_token": "x",'
    b' "vocab": {"one": 0}}}',
    "it cannot spell every text: .*Missing",
  ),
  (b'{"corpora": ["a"], "transcripts": 3}', "tokenizer.model beside it"),
]


@pytest.mark.parametrize("content, words", _BAD)
def test_what_is_no_tokenizer_is_one_error(content, words, tmp_path):
  path = tmp_path / "file"
  path.write_bytes(content)
  with pytest.raises(errors.UserError, match=words) as caught:
    tokenizer.load(str(path), config=_CONFIG)
  assert str(path) in str(caught.value) and "\n" not in str(caught.value)


@hypothesis.given(st.data())
@hypothesis.settings(max_examples=30)
def test_damage_is_an_error_or_a_tokenizer(tmp_path_factory, data):
  content = bytearray(hf_files.byte_level().to_str().encode())
  end = data.draw(st.integers(0, len(content)))
  at = data.draw(st.integers(0, len(content) - 1))
  content[at] = data.draw(st.integers(0, 255))
  path = tmp_path_factory.mktemp("damaged") / "tokenizer.json"
  path.write_bytes(content[: data.draw(st.sampled_from([end, len(content)]))])
  try:
    ours = tokenizer.load(str(path), config=_CONFIG)
  except errors.UserError:
    return
  assert all(0 <= i < ours.num_pieces for i in ours.encode("press one"))


def test_a_directory_is_one_error(tmp_path):
  with pytest.raises(errors.UserError, match="give a file, for instance"):
    tokenizer.load(str(tmp_path), config=_CONFIG)


def test_a_byte_order_mark_is_passed_over(tmp_path, byte_level):
  path = tmp_path / "tokenizer.json"
  path.write_bytes(b"\xef\xbb\xbf" + byte_level[1].to_str().encode())
  ours = tokenizer.load(str(path), config=_CONFIG)
  assert ours.encode("press") == byte_level[0].encode("press")
  assert tokenizer.described(str(path)).startswith("Hugging Face ")


def test_a_byte_level_file_of_another_pattern(tmp_path):
  """As of newer models: a Split by a pattern, then bytes without one."""
  path = tmp_path / "tokenizer.json"
  pattern = tokenizers.Regex(r" ?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+|\s+")
  made = hf_files.byte_level()
  made.pre_tokenizer = pre_tokenizers.Sequence(
    [
      pre_tokenizers.Split(pattern, "isolated"),
      pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
    ]
  )
  made.save(str(path))
  ours = tokenizer.load(str(path), config=_CONFIG)
  for text in ("press 1234 keys", "\n a\u200c", "☕☕"):
    assert ours.encode(text) == made.encode(f" {text}").ids
    assert ours.decode(ours.encode(text)) == text
