"""Latency, memory and size of model files on this device."""
