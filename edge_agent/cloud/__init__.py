"""What leaves the device, and what waits to be sent."""
