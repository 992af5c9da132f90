"""Tests of what crosses process boundaries: bytes in, values out, and nothing but ProtocolError."""
