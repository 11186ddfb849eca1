"""Virtual sensors, the scripts that they play, and the demo."""
