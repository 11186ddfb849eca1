"""Commands of `pulsegate`, each in a module of its own."""
