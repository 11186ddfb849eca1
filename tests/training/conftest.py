"""Tests of what only training needs are there where the `train` extra is."""

from importlib.util import find_spec

collect_ignore = [] if find_spec("torch") else ["test_ecg_rhythm_network.py", "test_rr_af_network.py", "test_beat_batches.py"]
