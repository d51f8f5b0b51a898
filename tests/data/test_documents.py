"""Corpora of documents in a mixture, from the shards to the batch."""

import collections
import json
import logging

import jax
import numpy as np
import pytest

from tests.helpers import recorded, small_data
from tml_jax import errors
from tml_jax.data import corpus, groups, mixture
from tml_jax.data.splits import Split
from tml_jax.evals import suites
from tml_jax.streams import frame as frame_lib
from tml_jax.streams import packing, tokenizer
from tml_jax.streams.document import Document
from tml_jax.streams.frame import Kind
from tml_jax.streams.timeline import Timeline

WORDS = [3, 400, 20, 900, 50, 7, 60, 200]
ENTRIES = ("a-calls:1", "a-texts:1")


@pytest.fixture(scope="module")
def root(tmp_path_factory):
  path = tmp_path_factory.mktemp("texts")
  recorded.write(
    path,
    **{
      "a-calls": [recorded.call(f"c{i}", seconds=6.0 + i) for i in range(5)],
      "a-texts": [
        recorded.article(f"t{i}", words=words) for i, words in enumerate(WORDS)
      ],
    },
  )
  return path


def opened(root, *entries, **data):
  fields = dict(group_size=8, logical_shards=2) | data
  return small_data.load(recorded.config(*entries, **fields), root)


def groups_of(batches, *, shards=(0, 1)):
  return groups.Groups(
    batches._mixture,
    shards=shards,
    first=tuple((0, 0) for _ in shards),
    num_shards=2,
    group_size=8,
    tokenizer_path=batches._tokenizer_path,
    config=batches._config,
  )


def test_a_corpus_gives_back_documents(root):
  found = corpus.RecordSource(root / "a-texts")
  assert [found[i] for i in range(len(found))] == [
    recorded.article(f"t{i}", words=words) for i, words in enumerate(WORDS)
  ]
  assert isinstance(corpus.RecordSource(root / "a-calls")[0], Timeline)
  assert next(found.texts()) == "a line of"


def test_every_token_of_a_group_is_a_target_of_its_entry(root):
  batches = opened(root, *ENTRIES)
  streams, mixed = batches._config.streams, batches._mixture
  made = groups_of(batches)
  batches.close()
  pieces = tokenizer.load(tokenizer.path(root), config=streams)
  end = frame_lib.token_id(frame_lib.Control.END, config=streams)
  want, items = collections.Counter(), [mixed.items[i] for i in range(8)]
  for item in items:
    if isinstance(item, Document):
      want.update([*pieces.encode(item.text), end])
  got, kinds = collections.Counter(), collections.Counter()
  for sequence in made[0]["sequences"]:
    targets = sequence.targets
    used = targets.positions < streams.seq_len
    text = used & (targets.kinds == Kind.TEXT)
    got.update(targets.tokens[text].tolist())
    kinds.update(targets.sources[text].tolist())
    assert (targets.sources[used & ~text] == 0).all()
    assert (sequence.speech.sources == 0).all()
  assert got == want and want.total() > 100
  assert set(kinds) == {1}
  # The positions that were drawn, by entry.
  assert made[0]["drawn"]["a-texts"] == want.total() + sum(
    isinstance(item, Document) for item in items
  )


@pytest.mark.slow
def test_weights_are_shares_of_positions(root, caplog):
  caplog.set_level(logging.INFO)
  batches = opened(root, *ENTRIES)
  made, found = groups_of(batches), collections.Counter()
  batches.close()
  for i in range(40):
    found.update(made[i]["drawn"])
  share = found["a-texts"] / found.total()
  assert share == pytest.approx(0.5, abs=0.06)
  assert "a-texts is 50.0 % of the positions" in caplog.text
  assert "are cut" not in caplog.text


def test_groups_are_bounded_by_the_letters_of_documents(root, monkeypatch):
  batches = opened(root, "a-texts:1")
  mixed = batches._mixture
  made = groups_of(batches, shards=(0,))
  batches.close()
  assert mixed.longest == 0.0 and mixed.largest == max(
    mixed.letters[i] for i in range(8)
  )
  assert made._is_whole()
  limit = 3000
  monkeypatch.setattr(groups, "_MAX_LETTERS", limit)
  assert not made._is_whole()
  elements, parts = [], 0
  while len(elements) < 24:
    group, first = made._begin(0, parts)
    following, stop = made._after(0, (group, first))
    here = range(first, stop if following == group else 8)
    start = made._start(0, group)
    sizes = [mixed.letters[start + i] for i in here]
    assert sum(sizes) <= limit or len(sizes) == 1
    elements += [(group, i) for i in here]
    parts += 1
  assert elements == [divmod(i, 8) for i in range(len(elements))]
  assert parts > 4


def test_a_state_goes_on_bit_for_bit(root, monkeypatch):
  monkeypatch.setattr(groups, "_MAX_LETTERS", 3000)
  batches = opened(root, *ENTRIES)
  reference = small_data.take(batches, 6)
  batches.close()
  for steps in (1, 4):
    batches = opened(root, *ENTRIES)
    small_data.take(batches, steps)
    state = json.loads(json.dumps(batches.get_state()))
    batches.close()
    resumed = opened(root, *ENTRIES)
    resumed.set_state(state)
    jax.tree.map(
      np.testing.assert_array_equal,
      small_data.take(resumed, 2),
      reference[steps : steps + 2],
    )
    resumed.close()


def test_turns_leave_documents_alone(root):
  batches = opened(root, "a-texts:1", layout="turns")
  (batch, *_) = small_data.take(batches, 1)
  batches.close()
  used = batch.targets.positions < batches._config.streams.seq_len
  assert used.any() and (batch.targets.kinds[used] == Kind.TEXT).all()


def test_a_document_is_no_conversation(root):
  config = recorded.config(*ENTRIES, heldout_share=0.6)
  mixed = mixture.build(config, data_dir=root, split=Split.TRAIN)
  index = next(i for i in range(99) if isinstance(mixed[i], Document))
  with pytest.raises(errors.UserError, match="the document 't.*another index"):
    mixture.pick(
      config, argument=f"train:{index}", flag="timeline", data_dir=root
    )
  suite = suites.Interactivity(
    config, data_dir=str(root), split=Split.HELDOUT, count=9
  )
  assert {item.family for item in suite.items()} == {"a-calls"}


def test_pieces_of_all_sequences_are_text(root):
  batches = opened(root, "a-texts:1")
  (sequence, *_) = groups_of(batches)[0]["sequences"]
  batches.close()
  held = packing.unpack(sequence, config=batches._config.streams)
  assert held and all(isinstance(each, packing.Text) for each in held)
