"""`pulsegate evaluate`: scores the models on annotated recordings."""
