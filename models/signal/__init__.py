"""Streaming signal processing in numpy. The result is bit-identical for any division of the input into chunks.

Some 70 constants of the QRS detector were chosen by its scores on the MIT-BIH Arrhythmia Database: see `models.signal.qrs`.
"""
