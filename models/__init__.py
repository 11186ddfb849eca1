"""Signal processing, anomaly models, rules and their findings."""
