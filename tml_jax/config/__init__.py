"""The typed config of an experiment; start reading at `schema.Config`."""

from tml_jax.config.schema import (
  PLAIN as PLAIN,
)
from tml_jax.config.schema import (
  AttentionForm as AttentionForm,
)
from tml_jax.config.schema import (
  Config as Config,
)
from tml_jax.config.schema import (
  DataConfig as DataConfig,
)
from tml_jax.config.schema import (
  Dtype as Dtype,
)
from tml_jax.config.schema import (
  ExecutionConfig as ExecutionConfig,
)
from tml_jax.config.schema import (
  FlowConfig as FlowConfig,
)
from tml_jax.config.schema import (
  Layout as Layout,
)
from tml_jax.config.schema import (
  LoopConfig as LoopConfig,
)
from tml_jax.config.schema import (
  MeshConfig as MeshConfig,
)
from tml_jax.config.schema import (
  ModelConfig as ModelConfig,
)
from tml_jax.config.schema import (
  MoeDispatch as MoeDispatch,
)
from tml_jax.config.schema import (
  MoeMatmul as MoeMatmul,
)
from tml_jax.config.schema import (
  Numerics as Numerics,
)
from tml_jax.config.schema import (
  OptimConfig as OptimConfig,
)
from tml_jax.config.schema import (
  Optimizer as Optimizer,
)
from tml_jax.config.schema import (
  Position as Position,
)
from tml_jax.config.schema import (
  RematPolicy as RematPolicy,
)
from tml_jax.config.schema import (
  SampleConfig as SampleConfig,
)
from tml_jax.config.schema import (
  SayText as SayText,
)
from tml_jax.config.schema import (
  Schedule as Schedule,
)
from tml_jax.config.schema import (
  StreamsConfig as StreamsConfig,
)
from tml_jax.config.schema import (
  TrainConfig as TrainConfig,
)
