"""Tests of the code as text: where imports point, how large things are, what stays behind the seams."""
