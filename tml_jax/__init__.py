"""An open JAX/TPU codebase for full-duplex interaction models.

Start reading at ARCHITECTURE.md. Importing this package imports nothing else,
so that entry points can refuse bad flags before jax starts.
"""
