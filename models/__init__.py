"""Signal chain, rules and anomaly models."""
