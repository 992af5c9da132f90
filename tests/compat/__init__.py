"""Programs that do the same on asyncray and on Ray."""
