"""Settings, clinical limits and file helpers. Imports no other package of this project."""
