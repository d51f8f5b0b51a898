"""The interaction model at every size: `--config=experiments/interaction.py:S`.

For: the sizes in `SIZES`. The reference configuration is written out in full,
with its data in data.py; every other size states only what differs from it.
Not for: ablations of one size. Sources of the trunk's numbers: the public
configuration of Inkling-Small; docs/parameters.md counts each size.
"""

import dataclasses

from experiments import data, topologies
from tml_jax import errors
from tml_jax.config import (
  PLAIN,
  AttentionForm,
  Config,
  Dtype,
  ExecutionConfig,
  ExpertWeights,
  FlowConfig,
  MeshConfig,
  ModelConfig,
  MoeDispatch,
  MoeMatmul,
  Numerics,
  OptimConfig,
  Optimizer,
  RematPolicy,
  SampleConfig,
  Schedule,
  StreamsConfig,
  TrainConfig,
)
from tml_jax.config import streams as streams_config


def tml_interaction_small() -> Config:
  """TML-Interaction-Small's published size: 276.24 B total, 12.00 B active.

  The trunk is Inkling-Small's with all 42 layers MoE, the count that gives
  the headline (the shipped weights have two dense layers:
  `inkling_small_as_shipped`). Streams, flow head and training are ours.
  """
  return Config(
    name="tml_interaction_small",
    streams=StreamsConfig(
      # The public tokenizer's rows; control tokens take the free ones after.
      text_vocab_size=200058,
      max_text_in=32,
      max_text_out=16,
      say_lead=0,
      video_height=240,  # 6 x 8 = 48 patches of 40 x 40
      video_width=320,
      seq_len=8192,  # about 150 s of audio-only talk
      # Bounds of the payload arrays, from positions per window: 10 with 8
      # audio tokens when both talk, 11 per `<speak>`, 6 per `<quiet>`.
      max_audio=6656,
      max_patches=6144,  # 5 frames of video a second
      max_speak=768,
      max_targets=2560,
      # Silence is most of a conversation; onset and stop are its events. The
      # ratio onset : silence tilts the odds of speaking: at 4 : 0.3 the tiny
      # model started 3 times a minute unasked and cut asked delays short.
      message_weight=1.0,
      silence_weight=0.3,
      speak_weight=1.0,
      onset_weight=1.0,
      stop_weight=1.0,
    ),
    model=ModelConfig(
      vocab_size=201024,
      d_model=4096,
      num_layers=42,
      attention_pattern="LLLLLG",
      num_heads=32,
      num_kv_heads=8,
      head_dim=128,
      swa_num_heads=32,
      swa_num_kv_heads=8,
      swa_head_dim=128,
      sliding_window=512,
      d_rel=16,
      rel_extent=1024,
      log_scaling_floor=128000,
      log_scaling_alpha=0.1,
      num_dense_layers=0,
      d_ff=16384,  # (6 + 2) x 2048: a dense layer costs what is active of MoE
      num_experts=256,
      experts_per_token=6,
      num_shared_experts=2,
      expert_d_ff=2048,
      route_scale=8.0,  # 6 + 2: equal gates weigh every expert by 1
      conv_kernel=4,
      rms_norm_eps=1e-6,
      logits_divisor=16.0,  # d_model over muP's base width, 256
      num_mtp_layers=0,
      dmel_channels=80,
      dmel_levels=16,
      # Volumes of the merged patches (75, 300, 4800) up to a multiple of 64.
      hmlp_widths=(128, 320, 4800),
      clock_features=64,
      init_std=0.02,
      query_norm_init=1.0,
      moe_tile=128,
      flow=FlowConfig(
        width=1536,
        depth=8,
        time_features=256,
        draws=4,
        steps=8,
        condition_drop=0.1,
        guidance=1.0,
        # Measured on 60 recorded prompts of each of five voices.
        mel_mean=-2.26,
        mel_std=1.05,
      ),
    ),
    data=data.REFERENCE,
    train=TrainConfig(
      steps=100_000,
      global_batch_size=1024,  # two sequences a chip
      accumulation_steps=1,
      seed=0,
      dtype=Dtype.BFLOAT16,
      remat_policy=RematPolicy.BLOCK,
      execution=ExecutionConfig(
        scan_layers=True,
        moe_dispatch=MoeDispatch.ALL_GATHER,
        moe_matmul=MoeMatmul.MEGABLOX,
        moe_buffer=1.125,
        loss_chunk=1280,  # 1.03 GB of float32 logits a sequence
        attention=AttentionForm.PALLAS,
      ),
      flow_loss_weight=1.0,
      feedback_noise=0.05,
      log_every=10,
      checkpoint_every=500,
      keep_checkpoints=3,
      evaluate_every=5000,
      optim=OptimConfig(
        name=Optimizer.MUON,
        schedule=Schedule.COSINE,
        learning_rate=2.2e-4,  # DeepSeek-V3's peak; TML's is not published
        muon_learning_rate=2.2e-3,
        final_learning_rate_ratio=0.1,
        warmup_steps=2000,
        b1=0.9,
        b2=0.95,
        eps=1e-8,
        weight_decay=0.1,
        clip_norm=1.0,
        router_bias_rate=1e-3,  # DeepSeek-V3
        ema_decay=0.9999,
        moment_dtype=Dtype.FLOAT32,
      ),
    ),
    # 512 chips: the experts over 8, every matrix over 64.
    mesh=MeshConfig(
      data=1, fsdp=64, expert=8, tensor=1, seq=1, rules=topologies.RULES
    ),
    sample=SampleConfig(
      temperature=0.8,
      top_p=0.95,
      flow_temperature=0.8,
      griffin_lim_iterations=32,
      horizon=8192,  # as far as training goes
      sinks=64,
      expert_weights=ExpertWeights.MODEL,
    ),
    numerics=Numerics.DEFAULT,
  )


def _longer(times: int) -> Config:
  """The reference with sequences of `times` its length, as many tokens a step.

  4 times is about 10 minutes of talk, 16 times 40. The mesh needs a `seq` axis;
  the rows of experiments/topologies.py have one of 8.
  """
  reference = tml_interaction_small()
  streams, train = reference.streams, reference.train
  sizes = ("seq_len", "max_audio", "max_patches", "max_speak", "max_targets")
  batch = train.global_batch_size // times
  shards = min(batch, reference.data.logical_shards)
  return dataclasses.replace(
    reference,
    name=f"{reference.name}_{times * streams.seq_len // 1024}k",
    streams=dataclasses.replace(
      streams, **{name: times * getattr(streams, name) for name in sizes}
    ),
    data=dataclasses.replace(reference.data, logical_shards=shards),
    train=dataclasses.replace(
      train,
      global_batch_size=batch,
      execution=dataclasses.replace(
        train.execution, loss_chunk=times * train.execution.loss_chunk
      ),
    ),
  )


def inkling_small_as_shipped() -> Config:
  """The released trunk, to count and to load: 265.956 B parameters shipped.

  Two dense layers and eight dense layers of multi-token prediction. The flow
  head and the clock embedding are ours and are not in that number.
  """
  reference = tml_interaction_small()
  return dataclasses.replace(
    reference,
    name="inkling_small_as_shipped",
    model=dataclasses.replace(
      reference.model,
      num_dense_layers=2,
      num_mtp_layers=8,
      # The mtp_config of the released config.json: layers 1 and 3 are global.
      mtp_attention_pattern="LGLGLLLL",
    ),
  )


def medium() -> Config:
  """For one v5p-64 or eight GPUs: the reference's ratios at half the width."""
  reference = tml_interaction_small()
  vocab_size = 65536
  return dataclasses.replace(
    reference,
    name="medium",
    streams=dataclasses.replace(
      reference.streams,
      text_vocab_size=vocab_size - streams_config.CONTROL_ROWS,
      seq_len=4096,
      max_audio=3328,
      max_patches=3072,
      max_speak=384,
      max_targets=1280,
    ),
    model=dataclasses.replace(
      reference.model,
      vocab_size=vocab_size,
      d_model=2048,
      num_layers=24,
      num_heads=16,
      num_kv_heads=4,
      swa_num_heads=16,
      swa_num_kv_heads=4,
      num_experts=64,
      expert_d_ff=1024,
      d_ff=8192,
      logits_divisor=8.0,
      flow=dataclasses.replace(reference.model.flow, width=1024, depth=6),
    ),
    data=dataclasses.replace(reference.data, logical_shards=64),
    train=dataclasses.replace(
      reference.train,
      global_batch_size=256,
      accumulation_steps=2,
      execution=dataclasses.replace(PLAIN, scan_layers=True, loss_chunk=512),
    ),
    mesh=dataclasses.replace(reference.mesh, fsdp=8, expert=1),
  )


def tiny() -> Config:
  """For two cores of a laptop: everything is there, minutes to train."""
  reference = tml_interaction_small()
  vocab_size = 1024
  return dataclasses.replace(
    reference,
    name="tiny",
    streams=dataclasses.replace(
      reference.streams,
      text_vocab_size=vocab_size - streams_config.CONTROL_ROWS,
      # What the user asked for is one token in a hundred; timing hangs on it.
      message_weight=4.0,
      max_text_in=8,
      max_text_out=8,
      video_height=120,  # 3 x 4 = 12 patches
      video_width=160,
      seq_len=768,  # about 20 s: a whole scenario
      max_audio=640,
      max_patches=48,
      max_speak=56,
      max_targets=224,
    ),
    model=dataclasses.replace(
      reference.model,
      vocab_size=vocab_size,
      d_model=128,
      num_layers=4,
      attention_pattern="LLLG",
      num_heads=4,
      num_kv_heads=2,
      head_dim=32,
      swa_num_heads=4,
      swa_num_kv_heads=2,
      swa_head_dim=32,
      sliding_window=128,
      d_rel=8,
      rel_extent=512,
      d_ff=384,
      num_experts=8,
      experts_per_token=2,
      num_shared_experts=1,
      expert_d_ff=128,
      route_scale=3.0,
      logits_divisor=1.0,  # narrower than muP's base width
      hmlp_widths=(16, 32, 64),
      init_std=0.05,  # narrow: nearer to 1 / sqrt(d_model)
      # Scores of spread 1, not 1 / sqrt(head_dim): a short run has no time to
      # grow the gains before attention can choose.
      query_norm_init=5.7,
      flow=dataclasses.replace(
        reference.model.flow, width=256, depth=3, time_features=64, draws=2
      ),
    ),
    data=dataclasses.replace(
      reference.data,
      logical_shards=4,
      group_size=32,
      workers=0,
      dev_share=0.0,  # a few calls of somebody may have none in a twentieth
    ),
    train=dataclasses.replace(
      reference.train,
      steps=800,  # 9 minutes with compilation
      global_batch_size=4,
      accumulation_steps=1,
      dtype=Dtype.FLOAT32,  # CPUs have no fast bfloat16
      remat_policy=RematPolicy.NONE,
      execution=PLAIN,
      checkpoint_every=100,
      evaluate_every=0,
      optim=dataclasses.replace(
        reference.train.optim,
        learning_rate=3e-3,
        muon_learning_rate=6e-3,
        warmup_steps=30,
        router_bias_rate=1e-2,  # a short run has few steps to balance in
        weight_decay=0.01,
        ema_decay=0.98,
      ),
    ),
    mesh=dataclasses.replace(reference.mesh, fsdp=1, expert=1),
    sample=dataclasses.replace(reference.sample, temperature=0.0, horizon=2048),
  )


def tiny_procedural() -> Config:
  """`tiny` where no speech package can be had."""
  config = tiny()
  return dataclasses.replace(
    config,
    name="tiny_procedural",
    data=dataclasses.replace(config.data, voices=data.PROCEDURAL_VOICES),
  )


def interactive() -> Config:
  """`tiny` on all scenario families, some of which show video."""
  config = tiny()
  return dataclasses.replace(
    config,
    name="interactive",
    streams=dataclasses.replace(
      config.streams,
      # A frame in every window: 1 x 2 = 2 patches.
      video_height=40,
      video_width=80,
      # A scenario of 18 s with video takes 830 positions, 180 of them patches.
      seq_len=896,
      max_patches=192,
      max_speak=64,
      max_targets=256,
    ),
    data=dataclasses.replace(
      config.data, mixture=data.INTERACTIVE_MIXTURE, dev_share=data.DEV_SHARE
    ),
    train=dataclasses.replace(config.train, steps=2400),
  )


SIZES = {
  "tiny": tiny,
  "tiny_procedural": tiny_procedural,
  "interactive": interactive,
  "medium": medium,
  "tml_interaction_small": tml_interaction_small,
  "tml_interaction_small_32k": lambda: _longer(4),
  "tml_interaction_small_128k": lambda: _longer(16),
  "inkling_small_as_shipped": inkling_small_as_shipped,
}


def get_config(name: str = "") -> Config:
  """The config called SIZE or SIZE@TOPOLOGY, what follows --config's colon."""
  size, _, topology = name.partition("@")
  if size not in SIZES:
    raise errors.UserError(
      f"experiments/interaction.py has no size {size!r}; write"
      f" experiments/interaction.py:SIZE with one of {', '.join(SIZES)}"
    )
  config = SIZES[size]()
  return topologies.on(config, topology=topology) if topology else config
