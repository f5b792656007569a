"""Scores of masks; nothing here knows files or networks."""
