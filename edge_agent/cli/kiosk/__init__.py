"""The kiosk on a device: what `service install --kiosk` writes beside the service, and the session that it starts.

`session/` runs on the device without the rest of edge-agent; `files.py` says which files there are, `installing.py` writes and removes
them, and `standing_in.py` makes the page that is shown while the server is not there.
"""
