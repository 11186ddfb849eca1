"""Collects the tests that need PyTorch only where the `train` extra is installed."""

from importlib.util import find_spec

collect_ignore = (
    []
    if find_spec("torch")
    else ["test_ecg_rhythm_network.py", "test_rr_af_network.py", "test_beat_batches.py", "test_window_net.py"]
)
