"""Tests of what decides: state machines alone, without I/O."""
