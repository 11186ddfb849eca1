"""Scoring of the models."""
