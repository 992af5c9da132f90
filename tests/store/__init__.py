"""Tests of the shared memory itself."""
