"""Measured side by side with stock Prefect, on this machine: `python -m benchmarks NAME [--quick]`."""
