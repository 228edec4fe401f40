"""Features to whoever asks: the client in process, and the HTTP server (a bare ASGI application).

Only Redis and the published plan are needed; nothing here imports Feast.
"""
