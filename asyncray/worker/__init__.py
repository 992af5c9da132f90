"""Runs calls: the inbox, the two modes of execution, and the functions it has been sent."""
