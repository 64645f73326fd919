"""Occurrences that were due and did not start: found, held until somebody decides, and carried on from there."""
