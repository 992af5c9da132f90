"""Tests with real processes: a driver, its node and its workers."""
