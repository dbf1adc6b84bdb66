"""`edge-agent serve`: the agent over HTTP. Everything that imports FastAPI, uvicorn or prometheus-client is in this wing.

Owns requests and replies. Decides nothing: the agent does. The rest of the package works without it.
"""
