"""Accelerators: one record per device, a catalogue with a source for every figure, and native-rate rules."""

from mfuroof.hardware.catalogue import Catalogue, catalogue_document, get_hardware, known_hardware, load_catalogue
from mfuroof.hardware.record import Hardware

__all__ = ["Catalogue", "Hardware", "catalogue_document", "get_hardware", "known_hardware", "load_catalogue"]
