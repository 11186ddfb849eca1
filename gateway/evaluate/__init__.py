"""`pulsegate evaluate`: how well detector and models do on annotated recordings."""
