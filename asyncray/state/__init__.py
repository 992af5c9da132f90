"""What decides: pure, synchronous state machines without I/O, clock, randomness or event loop."""
