"""Rules that turn beats and vital signs into findings.

Rules on heart beats take the beats one by one, with times in stream seconds. No interval that they use spans a gap.
"""
