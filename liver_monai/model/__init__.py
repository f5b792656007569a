"""Bundles, networks and their weights."""
