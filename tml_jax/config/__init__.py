"""The typed config of an experiment; start reading at `schema.Config`."""

from tml_jax.config.data import Damaged, DataConfig, Layout, OnChange
from tml_jax.config.mesh import MeshConfig
from tml_jax.config.model import FlowConfig, ModelConfig, Position
from tml_jax.config.sample import ExpertWeights, SampleConfig
from tml_jax.config.schema import Config, Numerics
from tml_jax.config.streams import SayText, StreamsConfig
from tml_jax.config.train import (
  PLAIN,
  AttentionForm,
  Dtype,
  ExecutionConfig,
  LoopConfig,
  MoeDispatch,
  MoeMatmul,
  OptimConfig,
  Optimizer,
  Precision,
  RematPolicy,
  Schedule,
  TrainConfig,
)
from tml_jax.config.turns import Detector, SemanticEnd, Start, TurnsConfig

__all__ = [
  "AttentionForm",
  "Config",
  "Damaged",
  "DataConfig",
  "Detector",
  "Dtype",
  "ExecutionConfig",
  "ExpertWeights",
  "FlowConfig",
  "Layout",
  "LoopConfig",
  "MeshConfig",
  "ModelConfig",
  "MoeDispatch",
  "MoeMatmul",
  "Numerics",
  "OnChange",
  "OptimConfig",
  "Optimizer",
  "PLAIN",
  "Position",
  "Precision",
  "RematPolicy",
  "SampleConfig",
  "SayText",
  "Schedule",
  "SemanticEnd",
  "Start",
  "StreamsConfig",
  "TrainConfig",
  "TurnsConfig",
]
