"""Rules on heart beats. Each sees the beats one by one and never joins intervals across a gap. Times are stream seconds."""
