"""What goes over the wire to a cloud, and what comes back."""
