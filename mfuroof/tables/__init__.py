"""Measured tables: their schemas, the embedded database, and the readers, checks and compilers of foreign layouts."""
