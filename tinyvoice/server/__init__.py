"""The HTTP, WebSocket and WebRTC server; `tinyvoice serve` runs it."""
