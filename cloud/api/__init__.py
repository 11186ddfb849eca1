"""HTTP and WebSocket interface of the clinic."""
