"""The same calls of two, as each importer of recordings reads them.

For: benchmarks.data_importers, and its test. Not for: what an importer does
with a file that is wrong (tests/data/importers). Start at `LAYOUTS`, a form by
the name of its importer.
"""

from benchmarks.layouts import collected, forms, logs, trainers

LAYOUTS = forms.LAYOUTS
calls = forms.calls
__all__ = ["LAYOUTS", "calls", "collected", "logs", "trainers"]
