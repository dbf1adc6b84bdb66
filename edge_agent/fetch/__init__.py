"""How models come to this device."""
