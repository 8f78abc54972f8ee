"""Readers of config families: each turns the fields of a config into layers."""
