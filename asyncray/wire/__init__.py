"""Bytes and nothing else: frames, messages, values and the handshake. No I/O, no clock, no event loop."""
