"""What an exported encoder gives outside of m2dx, measured: the tables of docs/leaving.md.

`python plugins/m2dx-onnx/tests/leaving.py features DATA` (or latency, scores DATA, golden) prints a table. DATA is a
folder of recordings, with the lists drums.csv, instrument.csv and esc10.csv in any folder below it.
"""

from __future__ import annotations
