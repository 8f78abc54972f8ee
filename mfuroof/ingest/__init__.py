"""Readers of foreign measurements: one module per source, each writing the project's own tables and provenance."""
