"""Rules that turn beats and vital signs into findings.

Rules on heart beats take the beats one by one, in stream seconds, and never join intervals across a gap.
"""
