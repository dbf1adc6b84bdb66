"""What leaves the device, and what waits to leave it."""
