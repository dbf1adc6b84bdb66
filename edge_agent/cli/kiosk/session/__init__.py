"""The session of the kiosk: a compositor with one window, and in it Chromium with one page.

`edge-agent service install --kiosk` copies this folder to the device, where the kiosk's own user runs it with the system's Python. So
it imports nothing of the rest of edge-agent, and nothing but the standard library.
"""
