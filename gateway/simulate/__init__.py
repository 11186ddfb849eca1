"""Virtual sensors, the scripts they play, and the demo."""
