"""Tests of what every process that makes calls has."""
