"""Reads tables: CSV and other text of columns, from the exports of devices, apps and programs."""
