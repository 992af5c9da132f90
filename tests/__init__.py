"""The test suite of asyncray: `make test`."""
