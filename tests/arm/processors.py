"""The processors that are emulated, and the variant of llama.cpp that each must load."""

VARIANTS = {
    "cortex-a53": "armv8.0_1",  # Raspberry Pi 3 and Zero 2 W
    "cortex-a72": "armv8.0_1",  # Raspberry Pi 4
    "cortex-a76": "armv8.2_2",  # Raspberry Pi 5
}
