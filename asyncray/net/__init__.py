"""Moving frames: connections over sockets, their in-memory twin, and request/reply on top of either."""
