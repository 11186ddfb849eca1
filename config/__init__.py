"""Settings, clinical limits and residency rules. Imports nothing of ours."""
