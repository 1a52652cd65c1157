"""The parts of the detector."""
