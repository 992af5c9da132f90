"""Benchmarks: the same rows on asyncray and on Ray, interleaved in one run (``python -m benchmarks``)."""
