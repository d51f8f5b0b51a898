"""A Whisper of a few kilobytes with random weights, as transformers saves one.

For: tests of recognisers. Start at `save`.
"""

import json

import torch
import transformers

_LANGUAGES = ("en", "fr")
_FRAMES = 1500  # of the encoder: half a minute, which the extractor pads to


def save(folder):
  """Writes model, tokenizer and feature extractor."""
  folder.mkdir()
  letters = _letters()
  vocabulary = {letter: number for number, letter in enumerate(letters)}
  (folder / "vocab.json").write_text(json.dumps(vocabulary))
  (folder / "merges.txt").write_text("#version: 0.2\n")
  special = [
    *("<|endoftext|>", "<|startoftranscript|>"),
    *(f"<|{language}|>" for language in _LANGUAGES),
    *("<|translate|>", "<|transcribe|>", "<|startoflm|>", "<|startofprev|>"),
    *("<|nospeech|>", "<|notimestamps|>"),
    *(f"<|{0.02 * k:.2f}|>" for k in range(1501)),
  ]
  tokenizer = transformers.WhisperTokenizerFast(
    vocab=vocabulary,
    merges=[],
    unk_token="<|endoftext|>",
    bos_token="<|endoftext|>",
    eos_token="<|endoftext|>",
  )
  tokenizer.add_tokens(
    [transformers.AddedToken(each, special=True) for each in special]
  )
  number = tokenizer.convert_tokens_to_ids
  end = number("<|endoftext|>")
  torch.manual_seed(0)
  config = transformers.WhisperConfig(
    vocab_size=len(tokenizer),
    num_mel_bins=80,
    d_model=32,
    encoder_layers=1,
    decoder_layers=2,
    encoder_attention_heads=2,
    decoder_attention_heads=2,
    encoder_ffn_dim=32,
    decoder_ffn_dim=32,
    max_source_positions=_FRAMES,
    max_target_positions=64,
    pad_token_id=end,
    bos_token_id=end,
    eos_token_id=end,
    decoder_start_token_id=number("<|startoftranscript|>"),
  )
  model = transformers.WhisperForConditionalGeneration(config)
  model.generation_config = transformers.GenerationConfig(
    pad_token_id=end,
    bos_token_id=end,
    eos_token_id=end,
    decoder_start_token_id=number("<|startoftranscript|>"),
    is_multilingual=True,
    lang_to_id={f"<|{x}|>": number(f"<|{x}|>") for x in _LANGUAGES},
    task_to_id={x: number(f"<|{x}|>") for x in ("translate", "transcribe")},
    no_timestamps_token_id=number("<|notimestamps|>"),
    prev_sot_token_id=number("<|startofprev|>"),
    alignment_heads=[[0, 0], [1, 1]],
    max_initial_timestamp_index=50,
    suppress_tokens=[],
    begin_suppress_tokens=[end],
    max_length=40,
    return_timestamps=False,
  )
  model.save_pretrained(folder)
  tokenizer.save_pretrained(folder)
  transformers.WhisperFeatureExtractor(feature_size=80).save_pretrained(folder)


def _letters():
  """GPT-2's names of the 256 bytes."""
  kept = [*range(33, 127), *range(161, 173), *range(174, 256)]
  others = [byte for byte in range(256) if byte not in kept]
  return [chr(b) for b in kept] + [chr(256 + n) for n in range(len(others))]
