"""Reads exports of vendors other than plain tables: JSON, JSON lines, tables with lists in cells, AliveCor and Viatom files."""
